"""Training and inference speed of the DeepFM beside the matrix products that it cannot do without, and PyTorch.

    python -m benchmarks.training                    # the default network
    python -m benchmarks.training --preset tutorial
    python -m benchmarks.training --rows 1000000 --update-rows touched    # embeddings of so many rows
    python -m benchmarks.training --torch PYTHON     # beside the same net, batch and CPU in PyTorch, round by round
    python -m benchmarks.training --profile          # where a step's time goes

The peer is NumPy (all cores) doing nothing but the deep network's products of the same sizes: one per layer forward,
two backward. The rest (lookups, dropout, the FM term, Adam over the tables) is what the ratio shows.
Training is measured as `train` does it, Adam on all rows, or with `--update-rows touched`; each in a run of its own, as
in one process the latter's arithmetic leaves the former at a third to all of its speed.
PYTHON is an interpreter that has PyTorch (`benchmarks/peers/torch_training.py`): Adam on everything, and with sparse
gradients, which update touched rows only. No environment of ours has it: its wheel brings 5 GB of CUDA along.
Runs in the model's environment; started from another one, it starts itself there.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import itertools
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from batch.train.checkpoint import Checkpoint, ModelShape, build_model, save_checkpoint
from batch.train.options import TrainOptions, UpdateRows
from batch.train.vocabulary import Vocabulary
from deploy.environments import REPOSITORY, interpreter

__all__ = ["untrained"]

ROUNDS = 5
SAMPLES = 16_384  # of one round
IDS = [4] * 30 + [300] * 7 + [3_000, 5_000, 8_000, 30_000]  # as many rows as half a million requests give
SAME = 1e-4  # two nets of the same weights: their losses differ by less


def untrained(options: TrainOptions, count: int = 2 * sum(IDS), seed: int = 1) -> tuple[Checkpoint, np.ndarray]:  # type: ignore[type-arg]
    """A checkpoint with random weights and ids int64 [count, fields] that it knows; its speed is a real one's."""
    generator = np.random.default_rng(seed)
    columns = [generator.integers(0, size, count) + field for field, size in enumerate(IDS)]
    ids = np.stack(columns, axis=1).astype(np.int64)
    vocabulary = Vocabulary.fit(ids, 1)
    shape = ModelShape(
        fields=len(IDS),
        rows=vocabulary.size,
        base_rate=0.05,
        options={"embedding": options.embedding, "layers": list(options.layers), "dropout": options.dropout},
        table_size_array=IDS,
        data_sha256="",
        sql_sha256="",
        encoder_sha256="sha256:benchmark",
    )
    return Checkpoint(shape, vocabulary, build_model(shape, bias=math.log(0.05 / 0.95))), ids


def seconds(work: Callable[[], object]) -> float:
    """Median of a few rounds, after one that does not count."""
    work()
    taken = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def in_turn(works: Mapping[str, Callable[[], float]]) -> dict[str, list[float]]:
    """What each gives in a few rounds in which all take their turns, after one that does not count."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    for number in range(ROUNDS + 1):
        for name, work in works.items():
            spent = work()
            if number:
                taken[name].append(spent)
    return taken


def timed(work: Callable[[], object]) -> Callable[[], float]:
    """The same work, which gives the seconds that it took."""

    def run() -> float:
        began = time.perf_counter()
        work()
        return time.perf_counter() - began

    return run


def products(options: TrainOptions, backward: bool) -> Callable[[], object]:
    """The deep network's matrix products for SAMPLES samples, in batches of the same size as training's."""
    widths = [len(IDS) * options.embedding, *options.layers, 1]
    generator = np.random.default_rng(0)
    shapes = list(itertools.pairwise(widths))
    weights = [generator.random(shape, np.float32) for shape in shapes]
    inputs = [generator.random((options.batch_size, width), np.float32) for width, _ in shapes]
    errors = [generator.random((options.batch_size, width), np.float32) for _, width in shapes]

    def run() -> None:
        for _ in range(SAMPLES // options.batch_size):
            for weight, given, error in zip(weights, inputs, errors, strict=True):
                _ = given @ weight
                if backward:
                    _, _ = error @ weight.T, given.T @ error

    return run


def drawn(sizes: Sequence[int], count: int) -> np.ndarray:  # type: ignore[type-arg]
    """Rows int32 [count, fields] of tables that have `sizes` rows for each field, one field behind the other."""
    generator, starts = np.random.default_rng(1), np.cumsum([0, *sizes[:-1]])
    columns = [generator.integers(0, size, count) + start for size, start in zip(sizes, starts, strict=True)]
    return np.stack(columns, axis=1).astype(np.int32)


class Torch:
    """PyTorch's side as a process, which waits for its turn."""

    def __init__(self, python: str, folder: Path, *, sparse: bool) -> None:
        argv = [python, str(REPOSITORY / "benchmarks" / "peers" / "torch_training.py"), str(folder)]
        argv += ["--sparse"] if sparse else []
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.loss = self._line()

    def train(self) -> float:
        """Seconds for all samples."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._line()

    def close(self) -> None:
        self._process.communicate()

    def _line(self) -> float:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"PyTorch's side ended with status {self._process.wait()}")
        return float(line)


def beside_torch(
    python: str, model: Any, options: TrainOptions, rows: Any, labels: Any, ours: Mapping[str, Callable[[], None]]
) -> None:
    """Rounds in turn: ours, PyTorch's with Adam on everything, and with sparse gradients; prints medians and ratios."""
    import oneflow as flow

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.save(folder / "rows.npy", rows)
        np.save(folder / "labels.npy", labels)
        np.savez(folder / "weights.npz", **{key: value.numpy() for key, value in model.state_dict().items()})
        keys = ("embedding", "layers", "dropout", "learning_rate", "embedding_l2", "batch_size")
        told = {key: getattr(options, key) for key in keys}
        told |= {"fields": rows.shape[1], "rows": model.embedding.weight.shape[0]}
        (folder / "options.json").write_text(json.dumps(told))
        peers = {
            "PyTorch, all rows": Torch(python, folder, sparse=False),
            "PyTorch, touched rows only": Torch(python, folder, sparse=True),
        }
    size = options.batch_size
    model.eval()
    logits, _ = model(flow.tensor(rows[:size]))
    loss = flow.nn.BCEWithLogitsLoss()(logits, flow.tensor(labels[:size])).item()
    for name, peer in peers.items():
        if abs(peer.loss - loss) > SAME:
            raise SystemExit(f"{name} is another net: its loss of the first batch is {peer.loss}, ours {loss}")
    taken = in_turn({name: timed(work) for name, work in ours.items()} | {key: at.train for key, at in peers.items()})
    for peer in peers.values():
        peer.close()
    compare(taken, ours, len(rows) // size * size)


def compare(taken: Mapping[str, list[float]], ours: Iterable[str], count: int) -> None:
    """Prints samples/s of each way, and the ratios of ours to it.

    Args:
        taken: seconds of each round, by way.
        ours: the ways that the others are compared with.
        count: samples of a round.
    """
    print(f"{ROUNDS} rounds in turn, median samples/s (least–most); ratios round by round:")
    for name, spent in taken.items():
        low, high = count / max(spent), count / min(spent)
        print(f"  {name:28} {count / statistics.median(spent):>9,.0f} ({low:,.0f}–{high:,.0f})", end="")
        for way in ours:
            if way != name:
                ratio = statistics.median(its / our for its, our in zip(spent, taken[way], strict=True))
                print(f"   {way} {ratio:.2f} of it", end="")
        print()


Work = Callable[[], object]


def step_parts(model: Any, batch: Any, labels: Any) -> dict[str, Callable[[], Work]]:
    """The parts of a training step by name: what prepares one, and gives what is to be timed."""
    import oneflow as flow

    size, answers = len(batch), flow.tensor(labels)
    model.train()
    found = flow.tensor(batch)
    width = model.width
    tables = [*model.embedding.parameters(), *model.first_order.parameters()]
    adams = {
        name: flow.optim.Adam(of, lr=1e-4) for name, of in (("tables", tables), ("network", model.deep.parameters()))
    }
    model(found)[0].sum().backward()  # gradients for the optimisers
    kinds: dict[str, list[Any]] = {"Linear": [], "ReLU": [], "Dropout": []}
    given = model.embedding(found).reshape(-1, width).detach()
    for layer in model.deep:
        kinds[type(layer).__name__].append((layer, given))
        given = layer(given).detach()

    def each(kind: str, *, backward: bool) -> Callable[[], Work]:
        def prepare() -> Work:
            inputs = [(layer, value.clone().requires_grad_()) for layer, value in kinds[kind]]
            if not backward:
                return lambda: [layer(value) for layer, value in inputs]
            outputs = [layer(value) for layer, value in inputs]
            grads = [flow.ones_like(output) for output in outputs]
            return lambda: [output.backward(grad) for output, grad in zip(outputs, grads, strict=True)]

        return prepare

    def pairwise(vectors: Any) -> Any:
        total = flow.matmul(vectors, model.field_sum)
        return 0.5 * ((total * total).sum(1) - flow.matmul(vectors * vectors, model.ones).squeeze(1))

    def lookups() -> tuple[Any, Any]:
        return model.embedding(found), model.first_order(found)

    def lookups_back() -> Work:
        outputs = lookups()
        grads = [flow.ones_like(output) for output in outputs]
        return lambda: [output.backward(grad) for output, grad in zip(outputs, grads, strict=True)]

    def pairwise_back() -> Work:
        output = pairwise(model.embedding(found).reshape(-1, width).detach().requires_grad_()).sum()
        back: Work = output.backward
        return back

    def loss_of() -> Any:
        return flow.nn.BCEWithLogitsLoss()(flow.zeros(size).requires_grad_(), answers)

    vectors = model.embedding(found).reshape(-1, width).detach()
    return {
        "ids to a tensor": lambda: lambda: flow.tensor(batch),
        "lookups, forward": lambda: lookups,
        "lookups, backward": lookups_back,
        "FM term, forward": lambda: lambda: pairwise(vectors),
        "FM term, backward": pairwise_back,
        **{
            f"{kind}, {'back' if backward else 'for'}ward": each(kind, backward=backward)
            for kind in kinds
            for backward in (False, True)
        },
        "loss, both ways": lambda: lambda: loss_of().backward(),
        "Adam, tables": lambda: adams["tables"].step,
        "Adam, network": lambda: adams["network"].step,
    }


def profile(model: Any, options: TrainOptions, rows: Any, labels: Any, whole: Callable[[], None]) -> None:
    """Prints what the parts of a step take, each waited for; the step itself overlaps some of them.

    OneFlow's own profiler cannot be had: it ends the process where there is no CUDA driver.
    """
    import oneflow as flow

    size, sync = options.batch_size, flow._oneflow_internal.eager.Sync
    parts = step_parts(model, rows[:size], labels[:size])
    spent: dict[str, float] = {}
    for name, prepare in parts.items():
        taken = []
        for _ in range(2 * ROUNDS):
            work = prepare()
            sync()
            began = time.perf_counter()
            work()
            sync()
            taken.append(time.perf_counter() - began)
        spent[name] = statistics.median(taken) * 1000
    step = seconds(whole) / (len(rows) // size) * 1000
    bare = [seconds(products(options, backward=back)) / (SAMPLES // size) * 1000 for back in (False, True)]
    print(f"a step of {size}: {step:.1f} ms; parts, each waited for (sum {sum(spent.values()):.1f} ms):")
    for name, ms in sorted(spent.items(), key=lambda at: -at[1]):
        print(f"  {name:18} {ms:7.2f} ms  {ms / sum(spent.values()):4.0%}")
    print(f"the bare products of Linear in NumPy: {bare[0]:.2f} ms forward, {bare[1]:.2f} both ways")


def speeds(
    checkpoint: Checkpoint, options: TrainOptions, ids: Any, rows: Any, train: Mapping[str, Callable[[], None]]
) -> None:
    """Prints samples/s of training, inference and the look-up of ids, beside the bare products."""
    from batch.train.deepfm import probabilities

    taken = in_turn({name: timed(work) for name, work in train.items()})
    compare(taken, train, SAMPLES // options.batch_size * options.batch_size)
    both_ways = seconds(products(options, backward=True))
    measured = {
        **{f"training, {name}": (statistics.median(spent), both_ways) for name, spent in taken.items()},
        "inference": (
            seconds(lambda: probabilities(checkpoint.model, rows)),
            seconds(products(options, backward=False)),
        ),
    }
    if ids is not None:
        measured["id lookup"] = seconds(lambda: checkpoint.vocabulary.lookup(ids[:SAMPLES])), math.nan
    for name, (ours, peer) in measured.items():
        beside = "" if math.isnan(peer) else f"   bare products {SAMPLES / peer:>10,.0f}   ratio {peer / ours:.2f}"
        print(f"{name:38} {SAMPLES / ours:>10,.0f} samples/s{beside}")


def stepping(checkpoint: Checkpoint, options: TrainOptions, rows: Any, labels: Any) -> Callable[[], None]:
    """Gives what trains all samples once, on a copy of the model of its own."""
    import oneflow as flow

    from batch.train.optimisation import Optimisation

    model = build_model(checkpoint.shape)
    model.load_state_dict(checkpoint.model.state_dict())
    optimisation, size = Optimisation(model, options), options.batch_size

    def train() -> None:
        for start in range(0, len(rows) - size + 1, size):
            optimisation.step(rows[start : start + size], labels[start : start + size])
        # Or the last step's Adam runs in the time of what comes next: 60 ms with a million rows.
        flow._oneflow_internal.eager.Sync()

    return train


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=["default", "tutorial"], default="default")
    parser.add_argument("--rows", type=int, default=0, help="of the embedding tables; default: what the ids own")
    parser.add_argument("--update-rows", choices=["all", "touched"], default="all", help="as of `train`; default: all")
    parser.add_argument("--torch", metavar="PYTHON", default="", help="an interpreter that has PyTorch")
    parser.add_argument("--profile", action="store_true", help="print where a step's time goes")
    parser.add_argument("--checkpoint", type=Path, help="write the untrained model there and end")
    args = parser.parse_args()
    if importlib.util.find_spec("oneflow") is None:
        os.chdir(REPOSITORY)
        os.execv(interpreter("model"), [str(interpreter("model")), "-m", "benchmarks.training", *sys.argv[1:]])
    options = TrainOptions.tutorial() if args.preset == "tutorial" else TrainOptions()
    checkpoint, ids = untrained(options)
    if args.checkpoint:
        args.checkpoint.mkdir(parents=True)
        save_checkpoint(args.checkpoint, checkpoint)
        return

    rows = checkpoint.vocabulary.lookup(ids[:SAMPLES])
    if args.rows:
        if args.rows <= sum(IDS):
            raise SystemExit(f"--rows must be above {sum(IDS)}")
        shape = msgspec.structs.replace(checkpoint.shape, rows=args.rows)
        model = build_model(shape, bias=math.log(0.05 / 0.95))
        checkpoint = Checkpoint(shape, checkpoint.vocabulary, model)
        rows = drawn([*IDS[:-1], args.rows - sum(IDS[:-1])], SAMPLES)
    labels = (np.random.default_rng(0).random(SAMPLES) < 0.05).astype(np.float32)
    named: dict[UpdateRows, str] = {"all": "all rows", "touched": "touched rows only"}
    ways = {
        f"OneFlow, {named[args.update_rows]}": stepping(
            checkpoint, dataclasses.replace(options, update_rows=args.update_rows), rows, labels
        )
    }

    print(
        f"layers {options.layers}, {checkpoint.shape.rows:,} rows of {options.embedding}, "
        f"batches of {options.batch_size}"
    )
    if args.torch:
        beside_torch(args.torch, checkpoint.model, options, rows, labels, ways)
    if args.profile:
        profile(checkpoint.model, options, rows, labels, next(iter(ways.values())))
    if not (args.torch or args.profile):
        speeds(checkpoint, options, None if args.rows else ids, rows, ways)


if __name__ == "__main__":
    main()
