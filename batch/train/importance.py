"""Permutation importance (Breiman 2001): how much AUC a model loses when one of its inputs says nothing any more."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from batch.report.figures import CLASS_MIN
from batch.report.ranking import Ranking
from batch.report.report import Importance

__all__ = ["permutation_importance", "samples_max"]

REPEATS = 3
SAMPLES_MAX = 4_000
SAMPLES_MIN = 200
WORK_MAX = 2e11  # multiplications: some seconds on two cores, whatever the width of the network


def samples_max(fields: int, embedding: int, layers: Sequence[int]) -> int:
    """How many samples to shuffle, so that a wide network takes no longer than a narrow one."""
    widths = [fields * embedding, *layers, 1]
    work = sum(above * below for above, below in itertools.pairwise(widths))
    return int(min(SAMPLES_MAX, max(SAMPLES_MIN, WORK_MAX / (work * fields * REPEATS))))


def permutation_importance(
    predict: Callable[[npt.NDArray[np.int32]], npt.NDArray[np.float32]],
    rows: npt.NDArray[np.int32],
    labels: npt.NDArray[np.float32],
    names: Sequence[str],
    *,
    samples: int,
    seed: int,
) -> tuple[list[Importance], int]:
    """Shuffles each input in turn, `REPEATS` times, and gives the AUC that is lost by it.

    Args:
        predict: rows [m, fields] to probabilities [m].
        rows: int32 [n, fields], rows of the embedding tables.
        labels: [n].
        names: of the fields.
        samples: how many to take at most, up to half of them positives, which are rare: the AUC does not depend on how
            many there are of each class.

    Returns:
        The fields in their order, and the number of samples; none and 0 where a class has fewer than `CLASS_MIN`.
    """
    generator = np.random.default_rng(seed)
    positive, negative = np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)
    if min(len(positive), len(negative)) < CLASS_MIN:
        return [], 0
    half = samples // 2
    of_positive = min(len(positive), max(half, samples - len(negative)))
    of_negative = min(len(negative), samples - of_positive)
    chosen = np.sort(
        np.concatenate(
            [
                generator.choice(positive, of_positive, replace=False),
                generator.choice(negative, of_negative, replace=False),
            ]
        )
    )
    taken, asked = rows[chosen], labels[chosen]
    whole = Ranking.of(asked, predict(taken)).auc()
    found = []
    for field, name in enumerate(names):
        losses = []
        for _ in range(REPEATS):
            shuffled = taken.copy()
            shuffled[:, field] = generator.permutation(taken[:, field])
            losses.append(whole - Ranking.of(asked, predict(shuffled)).auc())
        found.append(Importance(name, float(np.mean(losses)), min(losses), max(losses)))
    return found, len(chosen)
