"""The OneFlow model and its training, run in the model's environment."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from fixtures.model import InModelEnvironment, write_part
from places import REPOSITORY

from batch.dataset.folder_hash import digest
from batch.dataset.read import read_info, read_part
from batch.train.options import TrainOptions
from deploy.environments import interpreter

# Three checks of the network itself in one process: it is the import of OneFlow that takes the time.
AGAINST_NUMPY = """
import json, sys
from pathlib import Path
import numpy as np
from batch.train.deepfm import DeepFM, Dropout, Served, load_weights, probabilities, save_weights
import oneflow as flow

fields, width, rows = 5, 3, 40
model = DeepFM(rows=rows, fields=fields, embedding=width, layers=(8, 4), dropout=0.5, bias=-1.5, cold_rows=fields)
cold = model.embedding.weight.numpy()[:fields].copy()
for parameter in model.parameters():  # away from the small initial values
    drawn = np.random.default_rng(len(parameter.shape)).normal(size=tuple(parameter.shape))
    parameter.data.copy_(flow.tensor(drawn.astype(np.float32)))
state = {name: value.numpy().astype(np.float64) for name, value in model.state_dict().items()}
asked = np.random.default_rng(0).integers(0, rows, (17, fields)).astype(np.int32)

v = state["embedding.weight"][asked]
pairs = sum((v[:, f] * v[:, g]).sum(1) for f in range(fields) for g in range(f + 1, fields))
hidden = v.reshape(len(asked), -1)
for layer in (0, 3):
    hidden = np.maximum(hidden @ state[f"deep.{layer}.weight"].T + state[f"deep.{layer}.bias"], 0)
deep = (hidden @ state["deep.6.weight"].T + state["deep.6.bias"])[:, 0]
logits = deep + pairs + state["first_order.weight"][asked][:, :, 0].sum(1)

got = probabilities(model, asked)
served = Served(model)
one_layer = DeepFM(rows=rows, fields=fields, embedding=width, layers=(8,), dropout=0.5)
folder = Path(sys.argv[1])
save_weights(model, folder)
again = DeepFM(rows=rows, fields=fields, embedding=width, layers=(8, 4), dropout=0.5)
load_weights(again, folder)

dropout, ones = Dropout(0.2), flow.ones(500, 400)
ones.requires_grad = True
dropped = dropout(ones)
dropped.sum().backward()
again_dropped = dropout(ones).numpy()
print(json.dumps({
    "dropped": float((dropped.numpy() == 0).mean()),
    "kept": float(dropped.numpy().max()),
    "dropped_gradient": bool((ones.grad.numpy() == dropped.numpy()).all()),
    "dropped_again": bool((again_dropped == dropped.numpy()).all()),
    "dropped_never": bool((dropout.eval()(ones).numpy() == 1).all() and (Dropout(0.0)(ones).numpy() == 1).all()),
    "error": float(np.abs(got - 1 / (1 + np.exp(-logits))).max()),
    "cold": float(np.abs(cold).max()),
    "loaded": bool((probabilities(again, asked) == got).all()),
    "cut": float(np.abs(probabilities(model, asked, batch_size=4) - got).max()),
    "none": len(probabilities(model, asked[:0])),
    "served": float(np.abs(probabilities(served, asked) - got).max()),
    "served_cut": float(np.abs(probabilities(served, asked, batch_size=4) - got).max()),
    "served_one_layer": float(np.abs(probabilities(Served(one_layer), asked) - probabilities(one_layer, asked)).max()),
    "served_trains": len(list(served.parameters())) - 2 * 2,  # the second layer and the last are the trained ones
}))
"""

TRAIN = """
import dataclasses, json, sys
from pathlib import Path
from batch.train.options import TrainOptions
from batch.train.training import train_model

dataset = Path(sys.argv[1])
results = []
for place, folder in enumerate(sys.argv[3:]):
    options = TrainOptions(layers=(16,), batch_size=256, epochs_max=3, learning_rate=0.003, count_min=5)
    options = dataclasses.replace(options, **json.loads(sys.argv[2]))
    if place == 2:
        options = dataclasses.replace(options, seed=options.seed + 1)
    results.append(dataclasses.asdict(train_model(dataset, Path(folder), options)))
print(json.dumps(results))
"""

FAIL = """
import json, sys
from pathlib import Path
from batch.train.options import TrainOptions
from batch.train.training import train_model

try:
    options = TrainOptions(layers=(16,), batch_size=256, **json.loads(sys.argv[3]))
    train_model(Path(sys.argv[1]), Path(sys.argv[2]), options)
except Exception as error:
    print(json.dumps([type(error).__name__, str(error)]))
"""


EVALUATE = """
import dataclasses, json, sys
from pathlib import Path
from batch.train.evaluation import evaluate_checkpoint

results = []
for dataset, checkpoint, out in [case.split("|") for case in sys.argv[1:]]:
    try:
        measured = evaluate_checkpoint(Path(dataset), Path(checkpoint), Path(out) if out else None)
        results.append({part: dataclasses.asdict(metrics) for part, metrics in measured.items()})
    except Exception as error:
        results.append([type(error).__name__, str(error)])
print(json.dumps(results))
"""


@pytest.fixture
def dataset(tiny_dataset: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return shutil.copytree(tiny_dataset, tmp_path / "dataset")


def test_the_network_computes_deepfm(in_model_environment: InModelEnvironment, tmp_path: Path) -> None:
    told = in_model_environment(AGAINST_NUMPY, tmp_path / "weights")
    assert told["error"] < 1e-5
    assert told["cold"] == 0  # an id that training never saw adds nothing
    assert told["loaded"]
    assert told["cut"] < 1e-6
    assert told["none"] == 0
    # What Triton runs is the same function, put together from fewer operators.
    assert max(told["served"], told["served_cut"], told["served_one_layer"]) < 1e-6
    assert told["served_trains"] == 0
    assert told["dropped"] == pytest.approx(0.2, abs=0.005)  # five standard deviations
    assert told["kept"] == pytest.approx(1.25)
    assert told["dropped_gradient"]
    assert told["dropped_never"]
    assert not told["dropped_again"]


def test_one_seed_one_result_to_the_bit(
    in_model_environment: InModelEnvironment, tiny_dataset: Path, tmp_path: Path
) -> None:
    folders = [tmp_path / name for name in ("a", "b", "other-seed")]
    first, second, _ = in_model_environment(TRAIN, tiny_dataset, json.dumps({"dropout": 0.3}), *folders)
    a, b, other = (digest(folder / "model") for folder in folders)
    assert a == b
    assert a != other
    assert (folders[0] / "history.jsonl").read_bytes() == (folders[1] / "history.jsonl").read_bytes()
    assert first["best"] == second["best"]


def test_training_learns_and_keeps_the_best(tiny_checkpoint: Path, tiny_dataset: Path) -> None:
    history = [json.loads(line) for line in (tiny_checkpoint / "history.jsonl").read_text().splitlines()]
    metrics = json.loads((tiny_checkpoint / "metrics.json").read_text())
    best = max(history, key=lambda evaluation: evaluation["val_auc"])
    assert best["best"]
    # Evaluation loads the kept weights: they are those of the best line, not of the last.
    assert metrics["val"]["auc"] == pytest.approx(best["val_auc"], abs=1e-6)
    assert metrics["test"]["auc"] > 0.8  # 0.93 is what the true probabilities reach
    for part in ("val", "test"):
        assert metrics[part]["log_loss"] < metrics[part]["base_log_loss"]
        assert metrics[part]["calibration_error"] < 0.1
        assert metrics[part]["count"] == read_info(tiny_dataset).counts[part]


def test_predictions_carry_request_and_label(tiny_checkpoint: Path, tiny_dataset: Path) -> None:
    predictions = pq.read_table(tiny_checkpoint / "predictions.parquet")
    parts = [read_part(tiny_dataset, name) for name in ("val", "test")]
    assert predictions["request_id"].to_pylist() == [
        request for part in parts for request in part.request_ids.to_pylist()
    ]
    assert predictions["label"].to_pylist() == [int(label) for part in parts for label in part.labels]
    probabilities = predictions["probability"].to_numpy()
    assert probabilities.dtype == np.float32
    assert ((probabilities > 0) & (probabilities < 1)).all()


def test_evaluation_takes_later_data_of_the_same_encoder(
    in_model_environment: InModelEnvironment, tiny_dataset: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    def described(name: str, **changes: object) -> Path:
        folder = shutil.copytree(tiny_dataset, tmp_path / name)
        description = json.loads((folder / "dataset.json").read_text())
        (folder / "dataset.json").write_text(json.dumps(description | changes))
        return folder

    later = described("later", data_sha256="sha256:later", counts={"test": 1500})
    (later / "val.parquet").unlink()
    encoded_otherwise = described("otherwise", encoder_sha256="sha256:other")
    nothing = described("nothing", counts={"train": 6000})
    kept = (tiny_checkpoint / "metrics.json").read_bytes()

    cases = [(later, tmp_path / "out"), (later, ""), (encoded_otherwise, ""), (nothing, ""), (tmp_path, "")]
    words = [f"{folder}|{tiny_checkpoint}|{out}" for folder, out in cases]
    copy = shutil.copytree(tiny_checkpoint, tmp_path / "copy")
    whole = digest(copy)
    words.append(f"{tiny_dataset}|{copy}|")
    measured, unnamed, otherwise, empty, absent, again = in_model_environment(EVALUATE, *words)
    # Beside the parts' metrics the file names the weights that were measured.
    assert again == {name: part for name, part in json.loads(kept).items() if name != "weights_sha256"}
    assert digest(copy) == whole
    assert list(measured) == ["test"]
    assert measured["test"] == json.loads(kept)["test"]
    assert pq.read_table(tmp_path / "out" / "predictions.parquet").num_rows == 1500
    assert unnamed[0] == "DatasetError"
    assert "name a folder for the results" in unnamed[1]
    assert "was trained with encoder sha256:encoder" in otherwise[1]
    assert "counts has neither val nor test" in empty[1]
    assert "dataset.json does not exist" in absent[1]
    assert (tiny_checkpoint / "metrics.json").read_bytes() == kept


def test_training_stops_when_it_gets_no_better(
    in_model_environment: InModelEnvironment, tiny_dataset: Path, tmp_path: Path
) -> None:
    options = json.dumps({"patience": 1, "evals_per_epoch": 20})
    (result,) = in_model_environment(TRAIN, tiny_dataset, options, tmp_path / "checkpoint")
    assert result["stopped_early"]
    history = [json.loads(line) for line in (tmp_path / "checkpoint" / "history.jsonl").read_text().splitlines()]
    assert len(history) == result["evaluations"]
    assert [evaluation["best"] for evaluation in history[-2:]] == [True, False]


@pytest.mark.parametrize("way", ["all", "touched"])
def test_a_loss_that_is_no_number_stops_training(
    in_model_environment: InModelEnvironment, tiny_dataset: Path, tmp_path: Path, way: str
) -> None:
    options = json.dumps({"learning_rate": 1e30, "update_rows": way})
    kind, message = in_model_environment(FAIL, tiny_dataset, tmp_path / "out", options)
    assert kind == "TrainingFailed"
    assert re.search(r"step \d+: the loss is (nan|inf): lower the learning rate", message)
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.iterdir())  # nor anything half written beside it


def test_training_needs_both_classes(in_model_environment: InModelEnvironment, dataset: Path, tmp_path: Path) -> None:
    ids = read_part(dataset, "train").ids[:100]
    write_part(dataset / "train.parquet", ids, np.zeros(100, np.int8))
    kind, message = in_model_environment(FAIL, dataset, tmp_path / "out", "{}")
    assert kind == "DatasetError"
    assert "train.parquet: column 'label' is 0 in all 100 rows" in message


def test_validation_with_one_class_goes_by_log_loss(
    in_model_environment: InModelEnvironment, dataset: Path, tmp_path: Path
) -> None:
    ids = read_part(dataset, "val").ids[:100]
    write_part(dataset / "val.parquet", ids, np.zeros(100, np.int8))
    (result,) = in_model_environment(TRAIN, dataset, "{}", tmp_path / "checkpoint")
    assert result["val"]["auc"] is None
    history = [json.loads(line) for line in (tmp_path / "checkpoint" / "history.jsonl").read_text().splitlines()]
    assert result["best"]["val_log_loss"] == min(evaluation["val_log_loss"] for evaluation in history)


def test_the_tutorials_network_is_a_preset() -> None:
    options = TrainOptions.tutorial()
    assert (options.layers, options.dropout, options.learning_rate) == ((1000,) * 5, 0.2, 0.001)
    assert (options.embedding, options.batch_size, options.steps_per_epoch_min) == (16, 1000, 1)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), not 1.0"),
        ({"layers": ()}, "layers must be one or more positive widths"),
        ({"layers": (16, 0)}, "layers must be one or more positive widths"),
        ({"batch_size": 0}, "batch_size must be above 0, not 0"),
        ({"learning_rate": float("nan")}, "learning_rate must be above 0, not nan"),
        ({"embedding_l2": -1.0}, "embedding_l2 must not be negative"),
    ],
)
def test_options_out_of_range_are_refused(changes: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        TrainOptions(**changes)  # type: ignore[arg-type]


def test_loading_oneflow_says_nothing() -> None:
    """It misses InfiniBand and a CUDA driver, each time, on standard error; what is written afterwards is shown."""
    code = "import os, batch.train.deepfm; os.write(2, b'what is written afterwards')"
    argv = [str(interpreter("model")), "-c", code]
    done = subprocess.run(argv, cwd=REPOSITORY, capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (b"", b"what is written afterwards")
