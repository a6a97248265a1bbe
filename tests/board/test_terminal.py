"""`jd-intent-score top` by keys: the ranking lives, a row is opened, found, filtered; letters are there."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable

import pytest
from fixtures.board import Parts
from fixtures.records import Fake
from rich.console import Console
from textual.pilot import Pilot
from textual.widgets import OptionList, Static

from streaming.board.board import Board
from streaming.board.terminal import Terminal
from streaming.board.usual import Usual
from streaming.board.why import Explanation, Feature

PATIENCE_S = 60.0

Story = Callable[[Pilot[None], Terminal, Parts], Awaitable[None]]


def board_of(parts: Parts) -> Board:
    kept = (parts.pairs, parts.letters, parts.attributes)
    return Board(parts.shop, {"scores": "s", "dead_letters": "d"}, *kept, parts.kafka, parts, parts)


def told(story: Story, parts: Parts, size: tuple[int, int] = (100, 40)) -> None:
    """Runs a story at a terminal of `size` columns and lines."""
    ended, over = threading.Event(), threading.Event()
    terminal = Terminal(board_of(parts), ended, over)

    async def run() -> None:
        async with terminal.run_test(size=size) as pilot:
            await pilot.pause()
            await story(pilot, terminal, parts)

    asyncio.run(run())
    assert over.is_set()


async def until(condition: Callable[[], bool], pilot: Pilot[None]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        await pilot.pause(0.05)


def ranked(terminal: Terminal) -> list[str]:
    """The pairs of the table, the first first."""
    return [terminal.table.get_row_at(at)[1].plain for at in range(terminal.table.row_count)]


def text_of(terminal: Terminal, name: str) -> str:
    """What a part of the uppermost screen shows."""
    console = Console(width=120, color_system=None)
    with console.capture() as captured:
        console.print(terminal.screen.query_one(name, Static).content)
    return captured.get()


@pytest.fixture
def filled() -> Parts:
    """Nine pairs: user 100n wants product n with n %."""
    parts = Parts()
    parts.products()
    for n in range(9):
        parts.score(str(1000 + n), str(n), n / 100)
    return parts


def test_the_ranking_lives_and_is_held_while_it_is_read(filled: Parts) -> None:
    async def story(pilot: Pilot[None], terminal: Terminal, parts: Parts) -> None:
        assert ranked(terminal)[:2] == ["1008 · 8", "1007 · 7"]
        parts.score("1002", "2", 0.5)
        await until(lambda: ranked(terminal)[0] == "1002 · 2", pilot)
        assert terminal.table.get_row_at(0)[2].plain == "50.0%"
        await pilot.press("down")
        parts.score("1003", "3", 0.9)
        await until(lambda: "90.0%" in {row[2].plain for row in map(terminal.table.get_row_at, range(9))}, pilot)
        assert ranked(terminal)[0] == "1002 · 2"  # what is opened is what was meant
        assert "live" in text_of(terminal, "#figures")
        assert "the best 9 of 9 pairs (Enter opens one)" in text_of(terminal, "#told")

    told(story, filled)


def test_a_row_is_opened_and_says_why(filled: Parts) -> None:
    usual = Usual("recent", 2.0, 3.0, unusual=True)
    features = [Feature("kinds_21", "kinds_21", "count([b]x[/b]) of cards", 4, "number", usual, 0.294)]
    filled.explained = Explanation(0.08, "", 0.08, True, "commonest", features, {}, "{}", "user-actions[0]@4", "3", 160)

    async def story(pilot: Pilot[None], terminal: Terminal, _: Parts) -> None:
        await pilot.press("enter")
        await until(lambda: "kinds_21" in text_of(terminal, "#why"), pilot)
        why = text_of(terminal, "#why")
        for part in ("count([b]x[/b]) of cards", "2 to 3 unusual", "+29.4", "computed again it is 8.00%"):
            assert part in why
        pair = text_of(terminal, "#pair")
        for part in ("1008 · 8", "8.00%", "brand", "2016-03-31 18:11:20"):
            assert part in pair
        await pilot.press("f", "d", "slash")  # the ranking's keys mean nothing here
        assert len(terminal.screen_stack) == 2
        await pilot.press("escape")
        assert len(terminal.screen_stack) == 1

    told(story, filled)


def test_a_user_is_found_and_has_a_history(filled: Parts) -> None:
    async def story(pilot: Pilot[None], terminal: Terminal, _: Parts) -> None:
        await pilot.press("slash", *"1007", "enter")
        await until(lambda: terminal.screen.query_one(OptionList).option_count == 1, pilot)
        await pilot.press("enter")
        await until(lambda: "1007 · 7" in text_of(terminal, "#history"), pilot)
        assert "user 1007" in text_of(terminal, "#history")
        await pilot.press("escape", "slash", *"nobody", "enter")
        await until(lambda: terminal.screen.query_one(OptionList).option_count == 1, pilot)
        await pilot.press("escape")
        assert len(terminal.screen_stack) == 1

    told(story, filled)


def test_a_filter_is_chosen_and_taken_back(filled: Parts) -> None:
    async def story(pilot: Pilot[None], terminal: Terminal, _: Parts) -> None:
        await pilot.press("f")
        options = terminal.screen.query_one(OptionList)
        assert [str(options.get_option_at_index(at).prompt) for at in range(2)] == ["brand: any", "category: any"]
        await pilot.press("enter", "down", "enter")
        await until(lambda: len(ranked(terminal)) == 3, pilot)
        assert "brand" in text_of(terminal, "#told")
        await pilot.press("f", "enter", "home", "enter")
        await until(lambda: len(ranked(terminal)) == 9, pilot)

    told(story, filled)


def test_dead_letters_are_read_and_do_nothing_to_the_terminal(filled: Parts) -> None:
    why = ("__connect.errors.topic", b"user-actions")
    filled.letters.take([Fake(b"k", b"\x1b[31m[red]", [why], ("dlq", 0, n)) for n in range(3)])

    async def story(pilot: Pilot[None], terminal: Terminal, _: Parts) -> None:
        await pilot.press("d")
        assert "3 dead letters: 3 unknown" in text_of(terminal, "#reasons")
        await until(lambda: "[red]" in text_of(terminal, "#letter"), pilot)
        assert "\x1b[31m[red]" not in text_of(terminal, "#letter")
        await pilot.press("escape")

    told(story, filled)


def test_it_pauses_and_ends(filled: Parts) -> None:
    async def story(pilot: Pilot[None], terminal: Terminal, parts: Parts) -> None:
        await pilot.press("p")
        assert "paused" in text_of(terminal, "#told")
        parts.score("1000", "0", 0.99)
        await pilot.pause(1.2)
        assert ranked(terminal)[0] == "1008 · 8"
        await pilot.press("p", "w")
        await until(lambda: ranked(terminal)[0] == "1000 · 0", pilot)
        assert "scored within 15 minutes" in text_of(terminal, "#told")
        await pilot.press("q")

    told(story, filled)


@pytest.mark.parametrize("size", [(60, 20), (80, 24), (200, 60)])
def test_it_fits_any_terminal_and_is_there_before_the_first_score(size: tuple[int, int]) -> None:
    async def story(pilot: Pilot[None], terminal: Terminal, parts: Parts) -> None:
        assert "no score yet" in text_of(terminal, "#told")
        await pilot.press("enter", "f")  # nothing to open, nothing to choose
        assert len(terminal.screen_stack) == 1
        parts.score("1", "2", 0.5)
        await until(lambda: ranked(terminal) == ["1 · 2"], pilot)
        assert terminal.table.virtual_size.width <= size[0]
        await pilot.resize_terminal(70, 30)
        await until(lambda: terminal.table.virtual_size.width <= 70 and ranked(terminal) == ["1 · 2"], pilot)

    told(story, Parts(), size)
