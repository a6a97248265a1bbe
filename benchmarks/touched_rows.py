"""How good a model becomes whose steps update touched rows only, beside one whose steps update all of them.

    python -m benchmarks.touched_rows

A made world of 200,000 samples whose ids own 133,420 rows, most of which come once or twice: where the two ways differ
most. Both train for two epochs, are measured on 40,000 further samples eight times, and count with their best, as
`train` has it; three seeds. Runs in the model's environment; started from another one, it starts itself there.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import math
import os
import statistics
import sys

import numpy as np
import numpy.typing as npt

from batch.report.probability_metrics import ProbabilityMetrics, measure
from batch.train.checkpoint import ModelShape, build_model
from batch.train.options import TrainOptions, UpdateRows
from deploy.environments import REPOSITORY, interpreter

SIZES = [20] * 6 + [300, 3_000, 30_000, 100_000]  # ids of a field, the low ones more frequent
TRAINED, MEASURED = 200_000, 40_000
EFFECT = 0.5  # standard deviation of an id's share in the log-odds
OPTIONS = TrainOptions(layers=(64, 32), batch_size=1024)
EPOCHS, EVALUATIONS = 2, 4
SEEDS = (1, 2, 3)
WAYS: list[tuple[UpdateRows, float]] = [("all", 1), ("touched", 1), ("touched", 2)]  # and times the learning rate

Rows = npt.NDArray[np.int32]
Numbers = npt.NDArray[np.float32]


def world(
    count: int, generator: np.random.Generator, effects: npt.NDArray[np.float64]
) -> tuple[Rows, Numbers, Numbers]:
    """Rows int32 [count, fields], their true probabilities and labels drawn by these."""
    starts = np.cumsum([0, *SIZES[:-1]])
    ids = [(size * generator.random(count) ** 2).astype(np.int32) for size in SIZES]
    rows = np.stack(ids, axis=1) + starts.astype(np.int32)
    true = 1 / (1 + np.exp(2 - effects[rows].sum(axis=1)))
    return rows, true.astype(np.float32), (generator.random(count) < true).astype(np.float32)


def trained(
    options: TrainOptions, training: tuple[Rows, Numbers], measured: tuple[Rows, Numbers]
) -> ProbabilityMetrics:
    """The best of some evaluations, by AUC."""
    import oneflow as flow

    from batch.train.deepfm import probabilities
    from batch.train.optimisation import Optimisation

    (rows, labels), base_rate = training, float(training[1].mean())
    flow.manual_seed(options.seed)
    np.random.seed(options.seed)
    shape = ModelShape(len(SIZES), sum(SIZES), base_rate, dataclasses.asdict(options), SIZES, "", "", "")
    model = build_model(shape, bias=math.log(base_rate / (1 - base_rate)))
    optimisation, order = Optimisation(model, options), np.random.default_rng(options.seed)
    found = []
    for _ in range(EPOCHS):
        for part in np.array_split(order.permutation(len(rows)), EVALUATIONS):
            for start in range(0, len(part), options.batch_size):
                chosen = part[start : start + options.batch_size]
                optimisation.step(rows[chosen], labels[chosen])
            found.append(measure(measured[1], probabilities(model, measured[0]), base_rate))
    return max(found, key=lambda metrics: metrics.auc or 0)


def main() -> None:
    if importlib.util.find_spec("oneflow") is None:
        os.chdir(REPOSITORY)
        os.execv(interpreter("model"), [str(interpreter("model")), "-m", "benchmarks.touched_rows", *sys.argv[1:]])
    from batch.train import deepfm  # noqa: F401 - first: it sets what OneFlow reads when it is loaded

    generator = np.random.default_rng(5)
    effects = generator.normal(0, EFFECT, sum(SIZES))
    rows, _, labels = world(TRAINED, generator, effects)
    asked, true, answers = world(MEASURED, generator, effects)
    ceiling = measure(answers, true, float(labels.mean()))
    print(f"the true probabilities: AUC {ceiling.auc:.4f}, log loss {ceiling.log_loss:.4f}")
    for way, times in WAYS:
        chosen = dataclasses.replace(OPTIONS, update_rows=way, learning_rate=times * OPTIONS.learning_rate)
        found = [trained(dataclasses.replace(chosen, seed=seed), (rows, labels), (asked, answers)) for seed in SEEDS]
        aucs, losses = [at.auc or math.nan for at in found], [at.log_loss for at in found]
        print(
            f"{way:8} learning rate {times * OPTIONS.learning_rate}: AUC {statistics.median(aucs):.4f} "
            f"({min(aucs):.4f}–{max(aucs):.4f}), log loss {statistics.median(losses):.4f} "
            f"({min(losses):.4f}–{max(losses):.4f})",
            flush=True,
        )


if __name__ == "__main__":
    main()
