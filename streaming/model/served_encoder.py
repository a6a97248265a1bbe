"""Was the model that Triton serves trained on the ids of this encoder? If not, every probability of it is wrong."""

from __future__ import annotations

from collections.abc import Callable

from streaming.errors import ArtifactMismatch
from streaming.ops.clock import SYSTEM_CLOCK, Clock

__all__ = ["CHECK_S", "EncoderCheck", "refuse_other_encoder"]

CHECK_S = 5.0
"""How often the predict server asks Triton whether its model still belongs to our encoder."""


def refuse_other_encoder(trained_with: str | None, digest: str, model: str, ours: str, remedy: str = "") -> None:
    """Compares the encoder that a served model names with ours.

    Args:
        trained_with: what the model's configuration names (`Model.encoder_digest`); None: nothing.
        digest: of our encoder.
        model: how a message calls the served model.
        ours: what has our encoder, with its verb: "this scorer has".
        remedy: what to do, put behind the message.

    Raises:
        ArtifactMismatch: they are two.
    """
    if trained_with != digest:
        raise ArtifactMismatch(f"{model} was trained with encoder {trained_with}, {ours} {digest}{remedy}")


class EncoderCheck:
    """Asks again while a model is used: after an outage, for a version that is new, and every `every_s` seconds.

    Args:
        ask: Triton's answer, which encoder the model was trained with (`Model.encoder_digest`).
        digest, model, ours, remedy: see `refuse_other_encoder`.
        every_s: how often it is asked, under load.
        clock: counts that.
    """

    def __init__(
        self,
        ask: Callable[[], str | None],
        digest: str,
        model: str,
        ours: str,
        remedy: str,
        *,
        every_s: float = CHECK_S,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._every_s, self._clock = every_s, clock
        self._ask, self._digest, self._model, self._ours, self._remedy = ask, digest, model, ours, remedy
        self._checked = ("", 0.0)  # the version whose encoder was asked for, and when

    def forget(self) -> None:
        """The model was away: another may come back under the same version."""
        self._checked = ("", 0.0)

    def check(self, version: str) -> None:
        """Before anything that this version has answered is used.

        Raises:
            ArtifactMismatch: it belongs to another encoder.
            ModelUnavailable: Triton does not tell.
        """
        checked, at = self._checked
        if version == checked and self._clock.monotonic() - at < self._every_s:
            return
        refuse_other_encoder(self._ask(), self._digest, f"{self._model} version {version}", self._ours, self._remedy)
        self._checked = (version, self._clock.monotonic())
