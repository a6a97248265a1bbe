"""What is done behind an offset: as a note and back, and as it moves on."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming.config import Config
from streaming.errors import LogNotWhole
from streaming.kafka.ahead import Ahead
from streaming.kafka.lineage import Lineage, Lineages
from streaming.kafka.topics import Topic

HERE = ("actions", 0)
OFFSETS_METADATA_BYTES_MAX = 4096
"""What a broker takes beside an offset (offset.metadata.max.bytes)."""

offsets = st.frozensets(st.integers(1, 5000), min_size=1)


@given(offset=st.integers(0, 2**40), done=offsets)
def test_a_note_says_the_same_when_it_is_read(offset: int, done: frozenset[int]) -> None:
    ahead = Ahead(offset, frozenset(offset + number for number in done))
    assert Ahead.from_text(ahead.to_text()) == ahead
    assert len(ahead.to_text()) < OFFSETS_METADATA_BYTES_MAX - 500


@pytest.mark.parametrize("text", ["", "5", "5:", "x:eJw=", "5:eJw=", "5:%%", "-1:eJxrAAAAgQCB", "5:eJxjAAAAAQAB"])
def test_another_s_note_is_none(text: str) -> None:
    assert Ahead.from_text(text) is None


@given(data=st.data(), count=st.integers(1, 40))
def test_each_record_is_done_once_whatever_order_they_are_done_in(data: st.DataObject, count: int) -> None:
    """Records lie at some offsets; at each commit those that are not done are the ones that would be read again.

    Now and then the process dies, or forgets: it reads again from the offset, some records only.
    """
    places = sorted(data.draw(st.sets(st.integers(0, 200), min_size=count, max_size=count)))
    ahead, undone, end = Ahead(0), list(places), 0
    while undone:
        if data.draw(st.booleans()):
            end = ahead.offset
        end = max(end, data.draw(st.sampled_from(undone)) + 1)
        there = [place for place in undone if place < end]
        taken = data.draw(st.sets(st.sampled_from(there), min_size=1))
        undone = [place for place in undone if place not in taken]
        left = [place for place in there if place not in taken]
        ahead = ahead.moved(taken, left[0] if left else None, end)
        again = [place for place in places if not ahead.has(place)]
        assert again == undone
        assert all(number > ahead.offset for number in ahead.done)
    assert ahead.moved((), None, places[-1] + 1) == Ahead(places[-1] + 1)


def lineages(found: dict[Any, Any]) -> Lineages:
    topics: Any = SimpleNamespace(
        notes=lambda _: found,
        known={"actions": Topic("id", 1)},
        names=SimpleNamespace(events=("actions",), dimensions=()),
    )
    made = Lineages(Config(), topics)
    made.read_notes()
    return made


def test_a_note_has_what_the_state_is_made_of_and_what_is_ahead() -> None:
    made = lineages({})
    plain = made.note(HERE)
    made.ahead[HERE] = Ahead(7, frozenset([9, 12]))
    text = made.note(HERE)
    assert Lineage.from_text(text) == Lineage.from_text(plain) == made.now(HERE)
    assert json.loads(text)["ahead"].startswith("7:")
    read = lineages({HERE: (7, text)})
    assert read.noted_ahead(HERE, 7) == Ahead(7, frozenset([9, 12]))
    assert read.noted_ahead(HERE, 8) == Ahead(8), "the offset was set anew by somebody"
    assert read.noted == {HERE: made.now(HERE)}
    assert read.note(HERE) == text, "until the loop says otherwise"
    with pytest.raises(LogNotWhole, match=r"2 records behind actions\[0\]@7 are scored already, by a scorer over a"):
        read.refuse_ahead()
    lineages({HERE: (7, plain)}).refuse_ahead()
    assert lineages({HERE: (8, text)}).noted_ahead(HERE, 8) == Ahead(8)
