"""Training that updates touched rows only: Adam beside a loop in float64, a step, and whole trainings both ways."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from fixtures.model import InModelEnvironment
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from batch.dataset.folder_hash import digest
from batch.train.options import TrainOptions
from batch.train.touched_rows import LazyAdam, RowNumbers

ROWS, WIDTH = 50, 3
RATE = 0.01

# The first step of both ways, and the untouched rows after many. Losses of one net differ by rounding only.
STEPS = """
import dataclasses, json
import numpy as np
import oneflow as flow
from batch.train.checkpoint import ModelShape, build_model
from batch.train.deepfm import probabilities
from batch.train.options import TrainOptions
from batch.train.optimisation import Optimisation

options = TrainOptions(embedding=4, layers=(8, 4), dropout=0.0, learning_rate=0.01, embedding_l2=0.3)
fields, rows, count = 5, 400, 64
shape = ModelShape(fields, rows, 0.5, dataclasses.asdict(options), [], "", "", "")
generator = np.random.default_rng(3)
batches = [generator.integers(0, rows // 2, (count, fields)).astype(np.int32) for _ in range(5)]  # the rest: untouched
batches[0][:, 0] = 7  # a row that all samples have
labels = [(generator.random(count) < 0.5).astype(np.float32) for _ in batches]

def trained(way, steps):
    flow.manual_seed(1), np.random.seed(1)
    model = build_model(shape, bias=-0.5)
    for name, parameter in model.named_parameters():  # away from the small initial values
        drawn = np.random.default_rng(len(name)).normal(0, 0.3, tuple(parameter.shape))
        parameter.data.copy_(flow.tensor(drawn.astype(np.float32)))
    before = {name: value.numpy().copy() for name, value in model.state_dict().items()}
    optimisation = Optimisation(model, dataclasses.replace(options, update_rows=way))
    losses = [optimisation.step(*batch) for batch in list(zip(batches, labels))[:steps]]
    return before, {name: value.numpy().copy() for name, value in model.state_dict().items()}, losses, model

_, every, every_losses, _ = trained("all", 1)
before, touched, touched_losses, _ = trained("touched", 1)
seen = np.unique(batches[0])
told = {
    "losses": abs(every_losses[0] - touched_losses[0]),
    "apart": {name: float(np.abs(every[name] - touched[name]).max()) for name in every},
    "moved": {name: float(np.abs(touched[name] - before[name]).max()) for name in every},
}
before, touched, losses, model = trained("touched", 5)
seen = np.unique(np.concatenate(batches))
never = np.setdiff1d(np.arange(rows), seen)
tables = ("embedding.weight", "first_order.weight")
told["never"] = len(never)
told["untouched"] = [bool((touched[name][never] == before[name][never]).all()) for name in tables]
told["touched"] = [bool((touched[name][seen] != before[name][seen]).all()) for name in tables]
fresh = build_model(shape)
fresh.load_state_dict({name: flow.tensor(value) for name, value in touched.items()})
told["evaluated"] = bool((probabilities(fresh, batches[0]) == probabilities(model, batches[0])).all())
print(json.dumps(told))
"""

TRAIN = """
import dataclasses, json, sys
from pathlib import Path
from batch.train.checkpoint import load_checkpoint
from batch.train.evaluation import evaluate_checkpoint
from batch.train.export import export_artifact
from batch.train.options import TrainOptions
from batch.train.training import train_model

dataset, out = Path(sys.argv[1]), Path(sys.argv[2])
options = TrainOptions(layers=(32, 16), batch_size=256, epochs_max=6, learning_rate=0.003, count_min=2)
told = {}
for name, way in (("all", "all"), ("touched", "touched"), ("again", "touched")):
    result = train_model(dataset, out / name, dataclasses.replace(options, update_rows=way))
    measured = evaluate_checkpoint(dataset, out / name)
    told[name] = {"rows": result.rows, "best": dataclasses.asdict(result.best)}
    told[name] |= {part: dataclasses.asdict(metrics) for part, metrics in measured.items()}
    told[name]["options"] = load_checkpoint(out / name).shape.options["update_rows"]
export_artifact(dataset, out / "touched", out / "artifact")
print(json.dumps(told))
"""


def batches(count: int) -> st.SearchStrategy[npt.NDArray[np.int32]]:
    """Batches of rows, most of which come more than once; the upper half of the rows never."""
    return arrays(np.int32, (count, 8), elements=st.integers(0, ROWS // 2 - 1))


@given(batch=arrays(np.int32, st.tuples(st.integers(0, 20), st.integers(1, 5)), elements=st.integers(0, ROWS - 1)))
def test_rows_are_numbered_as_by_sorting(batch: npt.NDArray[np.int32]) -> None:
    numbers = RowNumbers(ROWS)
    for asked in (batch, (batch + 7) % ROWS, batch):  # what a batch leaves in the scratch array harms no other
        distinct, places = numbers.number(asked)
        assert sorted(distinct.tolist()) == np.unique(asked).tolist()
        assert places.shape == asked.shape
        assert (distinct[places] == asked).all()
        assert distinct.dtype == places.dtype == np.int32


@given(steps=batches(12), seed=st.integers(0, 2**32 - 1))
def test_adam_is_a_loop_over_the_rows_that_were_touched(steps: npt.NDArray[np.int32], seed: int) -> None:
    generator = np.random.default_rng(seed)
    table = generator.normal(size=(ROWS, WIDTH)).astype(np.float32)
    untouched = table.copy()
    slow = table.astype(np.float64)
    mean, square = np.zeros_like(slow), np.zeros_like(slow)
    numbers, adam = RowNumbers(ROWS), LazyAdam(table, RATE)
    for step, batch in enumerate(steps, start=1):
        each = generator.normal(size=(len(batch), WIDTH)).astype(np.float32)  # a gradient for each occurrence
        distinct, places = numbers.number(batch)
        gradient = np.zeros((len(distinct), WIDTH), np.float32)
        np.add.at(gradient, places, each)
        adam.step(distinct, gradient)
        for row in set(batch.tolist()):
            total = each[batch == row].astype(np.float64).sum(axis=0)
            mean[row] = 0.9 * mean[row] + 0.1 * total
            square[row] = 0.999 * square[row] + 0.001 * total**2
            rate = RATE * math.sqrt(1 - 0.999**step) / (1 - 0.9**step)
            slow[row] -= rate * mean[row] / (np.sqrt(square[row]) + 1e-8)
    assert np.abs(table - slow).max() < 1e-4 * RATE * len(steps)
    never = np.setdiff1d(np.arange(ROWS), steps)
    assert len(never) >= ROWS // 2
    assert (table[never] == untouched[never]).all()


def test_a_gradient_that_is_no_number_says_nothing_of_itself() -> None:
    table = np.zeros((ROWS, WIDTH), np.float32)
    adam = LazyAdam(table, RATE)
    gradient = np.array([[1e30, np.inf, np.nan], [1.0, 0.0, -1.0]], np.float32)
    with np.errstate(all="raise"):
        adam.step(np.array([3, 5], np.int32), gradient)
    assert np.isnan(table[3, 1:]).all()
    assert table[5] == pytest.approx([-RATE, 0, RATE], rel=1e-3)


def test_both_ways_train_one_network(in_model_environment: InModelEnvironment) -> None:
    told = in_model_environment(STEPS)
    assert told["losses"] < 1e-6
    # Adam's first step moves a weight by the learning rate, 0.01, whatever the gradient's size.
    assert all(moved == pytest.approx(0.01, rel=1e-2) for moved in told["moved"].values())
    # Apart where a gradient is near Adam's epsilon, which SparseAdam adds before the bias correction and Adam after it.
    assert all(apart < 5e-4 for apart in told["apart"].values()), told["apart"]
    assert told["never"] >= 200
    assert told["untouched"] == [True, True]
    assert told["touched"] == [True, True]
    assert told["evaluated"]  # evaluation reads the tables that training writes


def test_touched_rows_train_as_good_a_model(
    in_model_environment: InModelEnvironment, tiny_dataset: Path, tmp_path: Path
) -> None:
    told = in_model_environment(TRAIN, tiny_dataset, tmp_path)
    every, touched = told["all"], told["touched"]
    assert every["rows"] == touched["rows"]
    assert (every["options"], touched["options"]) == ("all", "touched")
    assert touched["test"]["auc"] == pytest.approx(every["test"]["auc"], abs=0.02)
    assert touched["test"]["log_loss"] == pytest.approx(every["test"]["log_loss"], abs=0.02)
    # What was kept is the best evaluation's model, not the last one's.
    history = [json.loads(line) for line in (tmp_path / "touched" / "history.jsonl").read_text().splitlines()]
    assert touched["val"]["auc"] == pytest.approx(max(line["val_auc"] for line in history), abs=1e-6)
    assert touched["val"]["log_loss"] == pytest.approx(touched["best"]["val_log_loss"], abs=1e-6)
    # One seed, one result; and what is exported has the files of any other.
    assert digest(tmp_path / "touched" / "model") == digest(tmp_path / "again" / "model")
    assert digest(tmp_path / "touched" / "model") != digest(tmp_path / "all" / "model")
    files = [
        sorted(str(file.relative_to(tmp_path / name)) for file in (tmp_path / name).rglob("*") if file.is_file())
        for name in ("all", "touched")
    ]
    assert files[0] == files[1]
    assert json.loads((tmp_path / "artifact" / "manifest.json").read_text())["options"]["update_rows"] == "touched"


def test_other_words_for_the_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="update_rows must be all or touched, not some"):
        TrainOptions(update_rows="some")  # type: ignore[arg-type]
