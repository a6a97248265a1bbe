"""The DeepFM in Triton, through the scorer's own client, beside the same in OneFlow's own process.

    python -m benchmarks.triton [--artifact DIR]    # default: an untrained network of the default size

Interleaved, round by round: `in process` is the network as evaluation runs it, raw ids in; `same operators` is the form
that Triton runs (`batch.train.deepfm.Served`), also in process; `shared memory` is Triton behind a Unix socket; `gRPC`
the same model over TCP, ids inline; `constant` a model that answers 0.5 behind shared memory: what the path costs.
`two` is shared memory with two calls under way, as the scorer has them under load. Ratios are of predictions/s.

Then what the first call at each size costs after a version was loaded, beside the median of the later ones.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from batch.train.checkpoint import read_shape
from batch.train.export import read_manifest, write_repository
from deploy.environments import REPOSITORY, interpreter
from deploy.triton.server import Triton
from streaming.model.triton import Call, Model

__all__: list[str] = []

BATCHES = (1, 64, 256, 1024, 4096, 10_000)
FIELDS = 41
ROUNDS = 9
ROUND_S = 0.25  # of one network or path: short, so that a busy moment of the machine meets all
CALLS_MIN, CALLS_MAX = 3, 30

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


def some_ids(rows: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng(0).integers(-(2**63), 2**63 - 1, (rows, FIELDS), dtype=np.int64)


def in_turn(model: Model, rows: int, calls: int) -> float:
    """Median seconds of a call, one after the other."""
    ids, taken = some_ids(rows), []
    for _ in range(calls):
        started = time.perf_counter()
        model.score(ids)
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def two_under_way(model: Model, rows: int, calls: int) -> float:
    """Mean seconds from one answer to the next, while another call is under way."""
    ids = some_ids(rows)
    under_way: deque[Call] = deque([model.submit(ids)])
    started = time.perf_counter()
    for _ in range(calls):
        under_way.append(model.submit(ids))
        under_way.popleft().result()
    taken = time.perf_counter() - started
    under_way.popleft().result()
    return taken / calls


def first_calls(repository: Path, folder: Path) -> None:
    """A version that was just loaded: the first call at each size, beside later ones."""
    print("\nafter a version was loaded: first call at a size, median of the next, in ms")
    with Triton(repository, folder, private=True) as server, Model(server.grpc_url, timeout_s=60) as model:
        model.prepare(FIELDS)
        for rows in BATCHES:
            first, later = in_turn(model, rows, 1), in_turn(model, rows, 15)
            print(f"{rows:>6}   {first * 1e3:>8.2f} {later * 1e3:>8.2f}   {first / later:.1f}x")


def main() -> None:
    parser = argparse.ArgumentParser(description="The DeepFM in Triton beside OneFlow in process.")
    parser.add_argument("--artifact", type=Path, help="folder that `jd-intent-batch export` wrote")
    args = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="jd-bench-")))
        constant, network = repositories(folder, args.artifact)
        (version,) = (path for path in (network / "embedding").iterdir() if path.is_dir())
        peer = stack.enter_context(
            subprocess.Popen(
                [str(interpreter("model")), "-m", "benchmarks.in_process", str(version)],
                cwd=REPOSITORY,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
        )

        def ask(name: str) -> Callable[[int, int], float]:
            def run(rows: int, calls: int) -> float:
                assert peer.stdin is not None
                assert peer.stdout is not None
                print(name, rows, calls, file=peer.stdin, flush=True)
                return float(peer.stdout.readline())

            return run

        def through(repository: Path, name: str, *, private: bool) -> Model:
            server = stack.enter_context(Triton(repository, folder / name, private=private))
            model = stack.enter_context(Model(server.grpc_url, timeout_s=60))
            if model.prepare(FIELDS) != private:
                raise SystemExit(f"{name}: shared memory does not work here")
            return model

        stack.callback(peer.kill)
        shared = through(network, "s", private=True)
        inline = through(network, "i", private=False)
        path = through(constant, "c", private=True)
        paths: dict[str, Callable[[int, int], float]] = {
            "in process": ask("trained"),
            "same operators": ask("served"),
            "shared memory": lambda rows, calls: in_turn(shared, rows, calls),
            "two": lambda rows, calls: two_under_way(shared, rows, calls),
            "gRPC": lambda rows, calls: in_turn(inline, rows, calls),
            "constant": lambda rows, calls: in_turn(path, rows, calls),
        }
        print(
            "ms a call; in brackets predictions/s as a share of those in process: median (least to most of the rounds)"
        )
        print(f"{'rows':>6}  " + "".join(f"{name:<28}" for name in paths))
        for rows in BATCHES:
            calls = {}
            for name, run in paths.items():
                run(rows, 1)
                calls[name] = min(CALLS_MAX, max(CALLS_MIN, int(ROUND_S / run(rows, 1))))
            rounds = [{name: run(rows, calls[name]) for name, run in paths.items()} for _ in range(ROUNDS)]
            print(f"{rows:>6}  " + "".join(f"{cell(rounds, name):<28}" for name in paths), flush=True)
    with tempfile.TemporaryDirectory(prefix="jd-bench-") as other:
        first_calls(repositories(Path(other), args.artifact)[1], Path(other) / "f")


def cell(rounds: list[dict[str, float]], name: str) -> str:
    """One path at one size."""
    middle = statistics.median(taken[name] for taken in rounds)
    shares = sorted(taken["in process"] / taken[name] for taken in rounds)
    return f"{middle * 1e3:8.2f} ({statistics.median(shares):.2f}: {shares[0]:.2f} to {shares[-1]:.2f})"


if __name__ == "__main__":
    main()
