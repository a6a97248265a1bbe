"""The demo's verdict: which requests may differ from offline, and that all others may not."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from batch.replay import Message, Replay
from deploy.demo.comparison import compare

EVENTS = st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 5), st.booleans()), max_size=12)


def replay_of(events: list[tuple[str, int, bool]]) -> Replay:
    return Replay(
        [], [Message("t", k.encode(), b"", t, f"r{n}" if asks else "") for n, (k, t, asks) in enumerate(events)]
    )


@given(EVENTS)
def test_requests_that_share_a_moment_of_their_key_are_tied(events: list[tuple[str, int, bool]]) -> None:
    alone = {
        f"r{n}"
        for n, (key, time, asks) in enumerate(events)
        if asks and all((key, time) != other[:2] for m, other in enumerate(events) if m != n)
    }
    replay = replay_of(events)
    assert replay.tied == set(replay.request_ids) - alone


@given(EVENTS, st.sets(st.integers(0, 11)))
def test_only_tied_requests_may_differ(events: list[tuple[str, int, bool]], wrong: set[int]) -> None:
    replay = replay_of(events)
    scores = {name: {"p": 0.9 if int(name[1:]) in wrong else 0.5} for name in replay.request_ids}
    count = len(scores)
    offline = pa.table({"request_id": list(scores), "probability": [0.5] * count, "label": [0] * count})
    found = compare(scores, "p", offline, replay.tied)
    different = {name for name in scores if int(name[1:]) in wrong}
    assert found.differing == len(different - replay.tied)
    assert found.tied == len(different & replay.tied)
    assert (found.difference_max > 0.1) == bool(different - replay.tied)
