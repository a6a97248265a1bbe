"""Is a model better than saying the base rate every time? What `evaluate` measured, its verdict, and `export`'s door.

A model is judged on the test part, where the dataset has one, else on validation, which has chosen it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from batch.dataset.read import DatasetError
from batch.report.figures import CLASS_MIN
from batch.report.probability_metrics import ProbabilityMetrics

__all__ = ["CLASS_MIN", "METRICS", "Evaluated", "Verdict", "check_better", "judge", "read_evaluated", "write_evaluated"]

METRICS = "metrics.json"


class Evaluated(msgspec.Struct, frozen=True, omit_defaults=True):
    """`metrics.json`.

    Attributes:
        weights_sha256: of the weights that were measured, `sha256:…`.
        val, test: what came of it by part.
    """

    weights_sha256: str
    val: ProbabilityMetrics | None = None
    test: ProbabilityMetrics | None = None

    @property
    def parts(self) -> dict[str, ProbabilityMetrics]:
        """The parts that were measured."""
        return {name: part for name, part in (("val", self.val), ("test", self.test)) if part is not None}


@dataclass(frozen=True)
class Verdict:
    """Is a model better than the base rate?

    Attributes:
        better: it is.
        text: why, in one line.
    """

    better: bool
    text: str


def judge(parts: Mapping[str, ProbabilityMetrics]) -> Verdict:
    """The verdict on what was measured.

    Args:
        parts: by `val`, `test` or both.
    """
    name = "test" if "test" in parts else "val"
    part = parts[name]
    negatives = part.count - part.positives
    if min(part.positives, negatives) < CLASS_MIN or part.auc is None or part.auc_low is None:
        return Verdict(
            False,
            f"cannot be judged: {name} has {part.positives:,} positive and {negatives:,} negative samples, and fewer "
            f"than {CLASS_MIN} of either say nothing",
        )
    measured = (
        f"AUC {part.auc:.4f}{_between(part.auc_low, part.auc_high)} with 95% confidence; log loss "
        f"{part.log_loss:.4f}{_between(part.log_loss_low, part.log_loss_high)}, beside {part.base_log_loss:.4f}; "
        f"on {part.positives:,} positive and {negatives:,} negative samples of {name}"
    )
    wrong = []
    if not part.auc_low > part.base_auc:  # so said, what is no number is no better
        wrong.append("its order may be chance")
    if not part.log_loss < part.base_log_loss:
        wrong.append("its probabilities are worse")
    if wrong:
        return Verdict(False, f"is no better than the base rate, {' and '.join(wrong)}: {measured}")
    return Verdict(True, f"is better than the base rate: {measured}")


def _between(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f", {low:.4f} to {high:.4f}"


def write_evaluated(folder: Path, evaluated: Evaluated) -> None:
    """Writes `metrics.json`."""
    (folder / METRICS).write_bytes(msgspec.json.format(msgspec.json.encode(evaluated), indent=2))


def read_evaluated(folder: Path) -> Evaluated:
    """Reads `metrics.json`.

    Raises:
        DatasetError: it is missing or wrong.
    """
    path = folder / METRICS
    try:
        evaluated = msgspec.json.decode(path.read_bytes(), type=Evaluated)
    except FileNotFoundError:
        raise DatasetError(f"{path} does not exist: run `jd-intent-batch evaluate` first") from None
    except msgspec.DecodeError as error:
        raise DatasetError(f"{path}: {error}: run `jd-intent-batch evaluate` again") from error
    if not evaluated.parts:
        raise DatasetError(f"{path}: neither val nor test in it: run `jd-intent-batch evaluate` again")
    return evaluated


def check_better(folder: Path, weights_sha256: str, *, accept_weak: bool) -> Evaluated:
    """What `evaluate` wrote to `folder`, where it is of these weights and says that they are of use.

    Args:
        accept_weak: take a model that is no better than the base rate.

    Raises:
        DatasetError: it is missing or wrong, of other weights, or the verdict is against them.
    """
    evaluated = read_evaluated(folder)
    if evaluated.weights_sha256 != weights_sha256:
        raise DatasetError(
            f"{folder / METRICS} is of a model with weights {evaluated.weights_sha256}, not {weights_sha256}: "
            "run `jd-intent-batch evaluate` again"
        )
    verdict = judge(evaluated.parts)
    if not (verdict.better or accept_weak):
        raise DatasetError(f"{folder / METRICS}: the model {verdict.text}; --accept-weak-model exports it all the same")
    return evaluated
