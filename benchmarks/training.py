"""Training and inference speed of the DeepFM beside the matrix products that it cannot do without.

    python -m benchmarks.training                   # the default network
    python -m benchmarks.training --preset tutorial

The peer is NumPy (all cores) doing nothing but the deep network's products of the same sizes: one per layer forward,
two backward. The rest (lookups, dropout, the FM term, Adam over the tables) is what the ratio shows.
Runs in the model's environment; started from another one, it starts itself there.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import math
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from batch.train.checkpoint import Checkpoint, ModelShape, build_model, save_checkpoint
from batch.train.options import TrainOptions
from batch.train.vocabulary import Vocabulary
from deploy.environments import REPOSITORY, interpreter

__all__ = ["untrained"]

ROUNDS = 5
SAMPLES = 16_384  # of one round
IDS = [4] * 30 + [300] * 7 + [3_000, 5_000, 8_000, 30_000]  # as many rows as half a million requests give


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


def main() -> None:
    parser = argparse.ArgumentParser(description="Speed of training and inference beside bare matrix products.")
    parser.add_argument("--preset", choices=["default", "tutorial"], default="default")
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

    from batch.train.deepfm import probabilities
    from batch.train.training import Optimisation

    rows = checkpoint.vocabulary.lookup(ids[:SAMPLES])
    labels = (np.random.default_rng(0).random(SAMPLES) < 0.05).astype(np.float32)
    optimisation = Optimisation(checkpoint.model, options)

    def train() -> None:
        for start in range(0, SAMPLES - options.batch_size + 1, options.batch_size):
            optimisation.step(rows[start : start + options.batch_size], labels[start : start + options.batch_size])

    print(
        f"layers {options.layers}, {checkpoint.shape.rows:,} rows of {options.embedding}, "
        f"batches of {options.batch_size}"
    )
    measured = {
        "training": (seconds(train), seconds(products(options, backward=True))),
        "inference": (
            seconds(lambda: probabilities(checkpoint.model, rows)),
            seconds(products(options, backward=False)),
        ),
        "id lookup": (seconds(lambda: checkpoint.vocabulary.lookup(ids[:SAMPLES])), math.nan),
    }
    for name, (ours, peer) in measured.items():
        beside = "" if math.isnan(peer) else f"   bare products {SAMPLES / peer:>10,.0f}   ratio {peer / ours:.2f}"
        print(f"{name:10} {SAMPLES / ours:>10,.0f} samples/s{beside}")


if __name__ == "__main__":
    main()
