"""Records of the scores' topic → scores, at the pace of a burst."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import Any, NamedTuple, TypeAlias

import msgspec

from streaming.board.fields import ScoreFields
from streaming.board.rows import Key

__all__ = ["Raw", "ScoreDecoder"]


class Raw(NamedTuple):
    """A record of the scores' topic: its value, its time (epoch ms), and where it lies."""

    value: bytes
    at: int
    partition: int
    offset: int


_Known: TypeAlias = str | int | float | bool
_Plain: TypeAlias = _Known | None


class ScoreDecoder:
    """Values of records → scores, all of a chunk at once where each is one line, as the scorer writes them."""

    def __init__(self, fields: ScoreFields, label_key: Sequence[str]) -> None:
        members: list[Any] = [
            (f"k{at}", _Plain if name in fields.items else _Known, msgspec.field(name=name))
            for at, name in enumerate(fields.pair)
        ]
        members.append(("probability", float, msgspec.field(name=fields.probability)))
        # Fields that a score does not have stay empty, under names that no JSON of ours has.
        members.append(("time", _Plain, msgspec.field(name=fields.time or "\x7ftime", default=None)))
        members.append(("version", _Plain, msgspec.field(name=fields.version or "\x7fversion", default=None)))
        member_of = {field.name: member for member, _, field in members}
        for field in label_key:
            if field not in member_of:
                member_of[field] = f"l{len(member_of)}"
                members.append((member_of[field], _Plain, msgspec.field(name=field, default=None)))
        score = msgspec.defstruct("Score", members, gc=False)
        self._decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(score)
        self.key = _getter([f"k{at}" for at in range(len(fields.pair))])
        self.label_key = _getter([member_of[field] for field in label_key])

    def __call__(self, records: Sequence[Raw]) -> tuple[list[Any], Sequence[Raw]]:
        """The scores, and the records that they came in."""
        try:
            scores: list[Any] = self._decoder.decode_lines(b"\n".join([record.value for record in records]))
        except (msgspec.DecodeError, UnicodeDecodeError):
            scores = []
        if len(scores) == len(records) and _are_probabilities(scores):
            return scores, records
        scores, kept = [], []
        for record in records:
            try:
                score = self._decoder.decode(record.value)
            except (msgspec.DecodeError, UnicodeDecodeError):
                continue
            if _are_probabilities([score]):
                scores.append(score)
                kept.append(record)
        return scores, kept


def _are_probabilities(scores: Iterable[Any]) -> bool:
    return all(0.0 <= score.probability <= 1.0 for score in scores)


def _getter(names: Sequence[str]) -> Callable[[Any], Key]:
    """Members of a score as a tuple."""
    if not names:
        return lambda _: ()
    get = attrgetter(*names)
    return get if len(names) > 1 else lambda score: (get(score),)
