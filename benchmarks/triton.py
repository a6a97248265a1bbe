"""Triton's own ceiling: a model that answers a constant, beside the DeepFM, through the scorer's own client.

    python -m benchmarks.triton [--artifact DIR]    # default: an untrained network of the default size

The constant model shows what the path costs (client, gRPC, Triton, Python backend); the ratio is what the network adds.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np

from batch.train.checkpoint import read_shape
from batch.train.export import read_manifest, write_repository
from deploy.environments import REPOSITORY, interpreter
from deploy.triton.server import Triton
from streaming.model.triton import Model

__all__: list[str] = []

BATCHES = (1, 64, 256, 1024, 4096, 10_000)
CALLS = 30
FIELDS = 41

CONSTANT = """
import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        answers = []
        for request in requests:
            rows = len(pb_utils.get_input_tensor_by_name(request, "INPUT_0").as_numpy())
            answer = pb_utils.Tensor("OUTPUT_0", np.full((rows, 1), 0.5, np.float32))
            answers.append(pb_utils.InferenceResponse([answer]))
        return answers
"""


def repositories(folder: Path, artifact: Path | None) -> tuple[Path, Path]:
    """The constant model's and the DeepFM's, both with the exported configuration."""
    if artifact is not None:
        read_manifest(artifact)
        network = artifact / "triton"
    else:
        checkpoint, network = folder / "checkpoint", folder / "network"
        argv = [str(interpreter("model")), "-m", "benchmarks.training", "--checkpoint", str(checkpoint)]
        subprocess.run(argv, cwd=REPOSITORY, check=True, stderr=subprocess.DEVNULL)
        write_repository(network, checkpoint, read_shape(checkpoint), version=1)
    constant = folder / "constant"
    (constant / "embedding" / "1").mkdir(parents=True)
    (constant / "embedding" / "config.pbtxt").write_text((network / "embedding" / "config.pbtxt").read_text())
    (constant / "embedding" / "1" / "model.py").write_text(CONSTANT)
    return constant, network


def latencies(model: Model, rows: int) -> list[float]:
    """Seconds of CALLS calls of `rows` rows, one after the other, sorted."""
    ids = np.random.default_rng(0).integers(-(2**63), 2**63 - 1, (rows, FIELDS), dtype=np.int64)
    model.score(ids)
    taken = []
    for _ in range(CALLS):
        started = time.perf_counter()
        model.score(ids)
        taken.append(time.perf_counter() - started)
    return sorted(taken)


def main() -> None:
    parser = argparse.ArgumentParser(description="The DeepFM in Triton beside a model that answers a constant.")
    parser.add_argument("--artifact", type=Path, help="folder that `jd-intent-batch export` wrote")
    args = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="jd-bench-triton-")))
        models = []
        for name, repository in zip(("constant", "network"), repositories(folder, args.artifact), strict=True):
            server = stack.enter_context(Triton(repository, folder / f"{name}-server"))
            models.append(stack.enter_context(Model(server.grpc_url, timeout_s=60)))
        print(f"{'rows':>6}   {'constant p50':>12} {'p99':>8}   {'DeepFM p50':>12} {'p99':>8}   {'rows/s':>9}   ratio")
        for rows in BATCHES:
            constant, network = (latencies(model, rows) for model in models)
            middle = [statistics.median(taken) for taken in (constant, network)]
            print(
                f"{rows:>6}   {middle[0] * 1e3:>9.2f} ms {constant[-1] * 1e3:>5.1f} ms   "
                f"{middle[1] * 1e3:>9.2f} ms {network[-1] * 1e3:>5.1f} ms   {rows / middle[1]:>9,.0f}   "
                f"{middle[1] / middle[0]:.1f}x"
            )


if __name__ == "__main__":
    main()
