"""The circuit breaker, on a clock of the test's own."""

from __future__ import annotations

import pytest

from streaming.errors import ModelUnavailable
from streaming.ops.breaker import Breaker, State

AWAY = ModelUnavailable("away, by the test")


class Story:
    """A breaker whose waits are never cut, and what it told."""

    def __init__(self, failures_max: int = 3, failing_s_max: float = 100.0, give_up_after_s: float = 1000.0) -> None:
        self.now = 50.0
        self.drawn: list[tuple[float, float]] = []
        self.told: list[State] = []
        self.breaker = Breaker(
            failures_max=failures_max,
            failing_s_max=failing_s_max,
            wait_s=1.0,
            wait_s_max=8.0,
            give_up_after_s=give_up_after_s,
            on_state=self.told.append,
            clock=lambda: self.now,
            jitter=self._draw,
        )

    def _draw(self, low: float, high: float) -> float:
        self.drawn.append((low, high))
        return high

    def fail(self) -> None:
        """A call, as soon as one is allowed, that fails."""
        self.now += self.breaker.wait_s()
        assert self.breaker.allows()
        self.breaker.failed(AWAY)

    def fail_for_ever(self) -> None:
        while True:
            self.fail()


def test_it_opens_after_failures_in_a_row_probes_and_closes() -> None:
    story = Story()
    breaker = story.breaker
    story.fail()
    story.fail()
    assert (breaker.state, story.told) == ("closed", [])
    story.fail()
    assert (breaker.state, story.told) == ("open", ["open"])
    assert not breaker.allows()
    story.now += breaker.wait_s() - 0.001
    assert not breaker.allows()
    story.now += 0.001
    assert breaker.allows()
    assert story.told == ["open", "half_open"]
    breaker.failed(AWAY)
    assert story.told == ["open", "half_open", "open"]
    assert not breaker.allows()
    story.now += breaker.wait_s()
    assert breaker.allows()
    breaker.succeeded()
    assert breaker.allows()
    assert story.told == ["open", "half_open", "open", "half_open", "closed"]
    story.fail()  # it counts from the beginning
    assert breaker.state == "closed"


def test_a_success_in_between_starts_the_count_anew() -> None:
    story = Story()
    for _ in range(5):
        story.fail()
        story.fail()
        story.breaker.succeeded()
    assert story.told == []


def test_it_opens_after_a_time_however_few_have_failed() -> None:
    story = Story(failing_s_max=10.0)
    story.fail()
    story.now += 10.0  # each call takes long to fail
    story.fail()
    assert story.breaker.state == "open"


def test_waits_double_up_to_the_longest_and_are_cut_at_random() -> None:
    story = Story()
    for _ in range(6):
        story.fail()
    assert story.drawn == [(0.5, 1.0), (1.0, 2.0), (2.0, 4.0), (4.0, 8.0), (4.0, 8.0), (4.0, 8.0)]


def test_it_gives_up_and_says_so() -> None:
    story = Story(give_up_after_s=20.0)
    with pytest.raises(ModelUnavailable, match=r"gave up after 20 s, \d+ calls: away, by the test"):
        story.fail_for_ever()
    assert story.now - 50.0 <= 20.0 + 8.0


def test_giving_up_counts_from_the_last_answer() -> None:
    story = Story(give_up_after_s=20.0)
    for _ in range(20):
        story.fail()
        story.now += 15.0
        story.breaker.succeeded()
