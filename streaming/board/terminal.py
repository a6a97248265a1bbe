"""The board in a terminal: figures above, the ranking below, and what a row or a key opens (`board.screens`)."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Mapping
from typing import ClassVar
from zoneinfo import ZoneInfo

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.coordinate import Coordinate
from textual.widgets import DataTable, Footer, Static

from streaming.board.board import Board
from streaming.board.rows import Key, PairRow
from streaming.board.screens import Choice, Find, LettersScreen, PairScreen
from streaming.board.told import (
    age,
    called,
    facts_told,
    figures_told,
    key_told,
    percent,
    spark,
    state_told,
    visible,
    who,
)

__all__ = ["Terminal"]

TICK_S = 1.0  # a redraw is some 12 kB
ROWS = 100
HELD_S = 8.0  # after a key in the table its order is held: what is opened is what was meant
TREND = 8
CELL_PADDING, SCROLLBAR = 1, 2
WHO, WHO_MIN, FACTS_MIN = 30, 12, 12  # columns of the terminal
OWN = {"find", "filter", "within", "letters", "pause"}  # actions
WITHIN: Mapping[int, str] = {3600: "1 hour", 900: "15 minutes", 60: "1 minute", 86_400: "1 day", 0: "any time"}


class Terminal(App[None]):
    """The screen that there is first. Keys stand in its last line.

    Args:
        board: what is shown.
        ended: is set when nothing is followed any more: then it ends.
        over: set it, and it ends; it sets it when it has.
    """

    ENABLE_COMMAND_PALETTE = False
    CSS = """
    #figures { height: auto; padding: 0 1; }
    #told { height: 1; padding: 0 1; margin-top: 1; }
    #ranking { height: 1fr; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "find", "Find", key_display="/"),
        Binding("f", "filter", "Filter"),
        Binding("w", "within", "Scored within"),
        Binding("d", "letters", "Dead letters"),
        Binding("p", "pause", "Pause"),
        Binding("q", "quit", "Quit"),
        Binding("ctrl+c", "quit", "Quit", priority=True, show=False),
    ]

    def __init__(self, board: Board, ended: threading.Event, over: threading.Event) -> None:
        super().__init__()
        self.board = board
        self.zone = ZoneInfo(board.app.settings.time_zone)
        self.names = board.app.settings.names
        self.filters: dict[str, str] = {}
        self._ended, self._over = ended, over
        self._within_s = next(iter(WITHIN))
        self._paused = False
        self._held_until = 0.0
        self._keys: list[Key] = []
        self._drawn: list[tuple[Text, ...]] = []
        self._total = 0
        self._drawn_width = 0
        self._has_facts = True

    def compose(self) -> ComposeResult:
        yield Static(id="figures")
        yield Static(id="told")
        yield DataTable[Text](id="ranking", cursor_type="row", cell_padding=CELL_PADDING)
        yield Footer()

    def on_mount(self) -> None:
        """Begins to draw, once a second."""
        self.theme = "ansi-dark"  # the terminal's own colours
        for number in (signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, self.exit)
        self._columns()
        self.query_one("#ranking").focus()
        self._tick()
        self.set_interval(TICK_S, self._tick)

    def on_unmount(self) -> None:
        self._over.set()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Its own keys mean the ranking: not where another screen lies above."""
        return len(self.screen_stack) == 1 if action in OWN else super().check_action(action, parameters)

    def on_key(self) -> None:
        self._held_until = time.monotonic() + HELD_S

    def on_data_table_row_selected(self) -> None:
        """Enter, in the table: the pair's scores, and why."""
        if len(self.screen_stack) == 1 and self.table.cursor_row < len(self._keys):
            self.push_screen(PairScreen(self.board, self._keys[self.table.cursor_row], self.zone))

    @property
    def table(self) -> DataTable[Text]:
        """The ranking."""
        found: DataTable[Text] = self.query_one("#ranking", DataTable)
        return found

    def action_find(self) -> None:
        """A user or an item by its name."""
        self.push_screen(Find(self.board, self.zone))

    def action_filter(self) -> None:
        """A value of a declared field, chosen in two steps."""
        choices = self.board.pairs.choices()
        fields = [(f"{called(self.names, name)}: {self.filters.get(name, 'any')}", name) for name in choices]
        if not fields:
            self.notify("no field of the dimension tables has been read yet")
            return

        def chosen(name: str | None) -> None:
            if name is None:
                return
            values = [("any", "")] + [
                (f"{visible(value) or '(empty)'}  ({count:,} pairs)", f"={value}")
                for value, count in choices.get(name, [])
            ]
            self.push_screen(Choice(called(self.names, name), values), lambda value: self._filter(name, value))

        self.push_screen(Choice("Filter by", fields), chosen)

    def _filter(self, name: str, value: str | None) -> None:
        if value:
            self.filters[name] = value[1:]
        elif value is not None:
            self.filters.pop(name, None)
        self._anew()

    def action_within(self) -> None:
        """How old the last score of a pair may be."""
        order = list(WITHIN)
        self._within_s = order[(order.index(self._within_s) + 1) % len(order)]
        self._anew()

    def action_letters(self) -> None:
        """What was refused."""
        self.push_screen(LettersScreen(self.board, self.zone))

    def action_pause(self) -> None:
        """Holds all of the ranking, or lets it go on."""
        self._paused = not self._paused
        self._anew()

    def _anew(self) -> None:
        self._held_until = 0.0
        self._draw_ranking(anew=True)

    def _columns(self) -> None:
        """Makes the table's columns for the terminal's width; where there is no room, nothing is said of the pairs."""
        table, fixed = self.table, {"#": 3, "prob.": 7, "trend": TREND, "scored": 11}
        left = self.size.width - sum(fixed.values()) - 2 * CELL_PADDING * (len(fixed) + 2) - SCROLLBAR
        self._has_facts = left >= WHO + FACTS_MIN
        wide = WHO if self._has_facts else max(WHO_MIN, left + 2 * CELL_PADDING)
        widths = {"#": 3, who(self.names, self.board.pairs.fields): wide, "prob.": 7, "trend": TREND}
        if self._has_facts:
            widths["known of them"] = left - WHO
        table.clear(columns=True)
        for label, width in {**widths, "scored": 11}.items():
            table.add_column(Text(visible(label)), width=width)
        self._drawn_width = self.size.width

    def _tick(self) -> None:
        if self._ended.is_set() or self._over.is_set():
            self.exit()
            return
        if len(self.screen_stack) > 1:
            return  # another screen lies above
        if self.size.width != self._drawn_width:
            self._columns()
            self._draw_ranking()
        now = time.time()
        figures = figures_told(self.board, self.zone)
        figures.title, figures.title_justify = state_told(self.board, now, self.zone), "left"
        self.query_one("#figures", Static).update(figures)
        if not self._paused:
            self._draw_ranking()

    def _draw_ranking(self, *, anew: bool = False) -> None:
        rows, table, now = self._rows(anew=anew), self.table, time.time()
        cells = [self._cells(number, row, now) for number, row in enumerate(rows, 1)]
        if len(cells) != table.row_count:
            at = table.cursor_row
            table.clear()
            table.add_rows(cells)
            table.move_cursor(row=min(at, max(0, len(cells) - 1)))
        else:  # what has changed only: it may go over a slow line
            for at, (new, old) in enumerate(zip(cells, self._drawn, strict=True)):
                for column, cell in enumerate(new):
                    if cell != old[column]:
                        table.update_cell_at(Coordinate(at, column), cell)
        self._drawn = cells
        self._keys = [row.key for row in rows]
        self.query_one("#told", Static).update(self._told())

    def _rows(self, *, anew: bool) -> list[PairRow]:
        if not anew and time.monotonic() < self._held_until and self._keys:
            found = [self.board.pairs.pair(key) for key in self._keys]
            return [kept[0] for kept in found if kept is not None]
        not_before = int((time.time() - self._within_s) * 1000) if self._within_s else 0
        rows, self._total = self.board.pairs.ranking(ROWS, not_before=not_before, filters=self.filters)
        return rows

    def _told(self) -> Text:
        """What the ranking is of."""
        if not self._total:
            what = "no pair is like that" if self.board.pairs.received else "no score yet"
        else:
            what = f"the best {len(self._keys):,} of {self._total:,} pairs (Enter opens one)"
        parts = [what, f"scored within {WITHIN[self._within_s]}" if self._within_s else "scored at any time"]
        parts += [f"{called(self.names, name)} {value or '(empty)'}" for name, value in self.filters.items()]
        return Text(visible(", ".join([*parts, *(["paused"] if self._paused else [])])), "dim", no_wrap=True)

    def _cells(self, number: int, row: PairRow, now: float) -> tuple[Text, ...]:
        facts = [Text(facts_told(self.names, self.board.attributes.of(row.key)), no_wrap=True, overflow="ellipsis")]
        return (
            Text(str(number), "dim", justify="right"),
            Text(key_told(row.key), "bold", no_wrap=True, overflow="ellipsis"),
            Text(percent(row.probability), justify="right"),
            Text(spark(row.trend[-TREND:]), "cyan"),
            *(facts if self._has_facts else []),
            Text(age(max(0.0, now - row.at / 1000)), "dim", justify="right"),
        )
