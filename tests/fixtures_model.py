"""Session fixtures of the model side: a small dataset with a signal, an artifact trained on it, a real Triton."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch.folder import digest
from deploy.environments import interpreter
from deploy.triton.server import Triton

REPOSITORY = Path(__file__).resolve().parent.parent
FEATURES_SQL = REPOSITORY / "sql" / "features.sql"
FIELDS = 41
TABLE_SIZES = [3] * 30 + [20] * 8 + [100, 400, 5000]
SAMPLES = {"train": 6000, "val": 1500, "test": 1500}

InModelEnvironment = Callable[..., Any]

# What the batch commands do, as one process: importing OneFlow is most of its time.
TRAIN_EVALUATE_EXPORT = """
import sys
from pathlib import Path
from batch.evaluate import evaluate
from batch.export import export
from batch.train import TrainOptions, train

dataset, checkpoint, features, artifact = map(Path, sys.argv[1:])
options = TrainOptions(layers=(32, 16), batch_size=256, epochs_max=4, learning_rate=0.003, count_min=5)
train(dataset, checkpoint, options)
evaluate(dataset, checkpoint)
export(dataset, checkpoint, features, artifact)
"""


def write_dataset(folder: Path, seed: int = 7) -> Path:
    """A dataset folder in DATA's layout: logistic in 41 categorical fields, the last of them nearly a user id."""
    generator = np.random.default_rng(seed)
    ids = [generator.integers(-(2**63), 2**63 - 1, size, dtype=np.int64) for size in TABLE_SIZES]
    effects = [generator.normal(0, 0.6 if size <= 100 else 0.2, size) for size in TABLE_SIZES]
    (folder / "encoder").mkdir(parents=True)
    (folder / "encoder" / "encoder.json").write_text('{"fields": 41}')
    positives = {}
    for name, count in SAMPLES.items():
        drawn = np.stack([generator.integers(0, size, count) for size in TABLE_SIZES], axis=1)
        logits = sum(effect[drawn[:, field]] for field, effect in enumerate(effects)) - 2.0
        labels = (generator.random(count) < 1 / (1 + np.exp(-logits))).astype(np.int8)
        positives[name] = int(labels.sum())
        write_part(
            folder / f"{name}.parquet",
            np.stack([ids[field][drawn[:, field]] for field in range(FIELDS)], axis=1),
            labels,
        )
    info = {
        "counts": SAMPLES,
        "positives": positives,
        "table_size_array": TABLE_SIZES,
        "split": {"val_from": 1, "test_from": 2},
        "data_sha256": "sha256:data",
        "sql_sha256": digest(FEATURES_SQL),
        "encoder_sha256": "sha256:encoder",
    }
    (folder / "dataset.json").write_text(json.dumps(info))
    return folder


def write_part(path: Path, ids: npt.NDArray[np.int64], labels: npt.NDArray[np.int8]) -> None:
    """One parquet file of a dataset."""
    count = len(labels)
    table = pa.table(
        {
            "reqId": pa.array([f"{path.stem}-{row}" for row in range(count)]),
            "eventTime": pa.array(np.arange(count), pa.timestamp("ms")),
            "label": pa.array(labels),
            "ids": pa.FixedSizeListArray.from_arrays(pa.array(ids.reshape(-1)), FIELDS),
        }
    )
    pq.write_table(table, path)


@pytest.fixture(scope="session")
def in_model_environment() -> InModelEnvironment:
    """Runs a script in the model's environment (OneFlow); returns the JSON that it prints last, None for nothing.

    A script that fails raises AssertionError with its stderr.
    """

    def run(script: str, *arguments: object) -> Any:
        argv = [str(interpreter("model")), "-W", "error::DeprecationWarning:batch", "-c", script, *map(str, arguments)]
        done = subprocess.run(argv, cwd=REPOSITORY, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
        return json.loads(lines[-1]) if lines else None

    return run


@pytest.fixture(scope="session")
def tiny_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset folder of 6,000 training samples; do not write into it."""
    return write_dataset(tmp_path_factory.mktemp("dataset") / "dataset")


@pytest.fixture(scope="session")
def tiny_checkpoint(tiny_artifact: Path) -> Path:
    """The checkpoint that `tiny_artifact` was exported from, with its predictions; do not write into it."""
    return tiny_artifact.parent / "checkpoint"


@pytest.fixture(scope="session")
def tiny_artifact(
    tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory, in_model_environment: InModelEnvironment
) -> Path:
    """An artifact trained on `tiny_dataset`; do not write into it."""
    folder = tmp_path_factory.mktemp("trained")
    in_model_environment(
        TRAIN_EVALUATE_EXPORT,
        tiny_dataset,
        folder / "checkpoint",
        FEATURES_SQL,
        folder / "artifact",
    )
    return folder / "artifact"


@pytest.fixture(scope="session")
def triton(tiny_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Triton]:
    """A real Triton that serves `tiny_artifact`; tests must leave it running."""
    with Triton(tiny_artifact / "triton", tmp_path_factory.mktemp("triton")) as server:
        yield server


def write_repository(repository: Path, answer: str) -> Path:
    """A repository whose model `embedding` is a Python file with the given body of `answer(ids)`."""
    model = repository / "embedding"
    shutil.rmtree(model, ignore_errors=True)
    (model / "1").mkdir(parents=True)
    config = (REPOSITORY / "deploy" / "triton" / "config.pbtxt").read_text()
    (model / "config.pbtxt").write_text(config.replace("$instances", "1").replace("$encoder_sha256", "sha256:none"))
    (model / "1" / "model.py").write_text(
        "import numpy as np\n"
        "import triton_python_backend_utils as pb_utils\n"
        "def answer(ids):\n"
        f"    {answer}\n"
        "class TritonPythonModel:\n"
        "    def execute(self, requests):\n"
        "        inputs = [pb_utils.get_input_tensor_by_name(r, 'INPUT_0').as_numpy() for r in requests]\n"
        "        return [pb_utils.InferenceResponse([pb_utils.Tensor('OUTPUT_0', answer(i))]) for i in inputs]\n"
    )
    return repository


@pytest.fixture
def small_repository(tmp_path: Path) -> Callable[[str], Path]:
    """`write_repository` in this test's folder."""
    return lambda answer: write_repository(tmp_path / "repository", answer)
