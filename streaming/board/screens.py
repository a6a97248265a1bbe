"""What a row or a key of the terminal opens: a pair and why, a search, a choice, dead letters. Escape closes it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import ClassVar
from zoneinfo import ZoneInfo

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen, Screen
from textual.widgets import DataTable, Footer, Input, OptionList, Static
from textual.widgets.option_list import Option

from streaming.board.board import Board
from streaming.board.rows import Key, Place, ScoreRow
from streaming.board.told import became, called, key_told, moment, percent, spark, value_told, visible
from streaming.board.usual import Usual
from streaming.board.why import Explanation, Feature

__all__ = ["Choice", "Find", "HistoryScreen", "LettersScreen", "PairScreen"]

SCORES = 50
SPARK = 40
BACK: list[BindingType] = [Binding("escape,backspace", "app.pop_screen", "Back")]


class PairScreen(Screen[None]):
    """A pair: what is known of it, its last scores, and what moved the newest one."""

    BINDINGS: ClassVar[list[BindingType]] = BACK
    CSS = "PairScreen VerticalScroll { padding: 0 1; }"

    def __init__(self, board: Board, key: Key, zone: ZoneInfo) -> None:
        super().__init__()
        self._board, self._key, self._zone = board, key, zone

    def compose(self) -> ComposeResult:
        with VerticalScroll():
            yield Static(id="pair")
            yield Static(id="why")
            yield Static(id="scores")
        yield Footer()

    def on_mount(self) -> None:
        """Shows what is there, and asks why in a thread: it takes its time."""
        found = self._board.pairs.pair(self._key)
        if found is None:
            self.query_one("#pair", Static).update("this pair is not kept any more")
            return
        row, scores, place = found
        names = self._board.app.settings.names
        told = {called(names, field): key_told((part,)) for field, part in zip(self._fields(), row.key, strict=True)}
        told |= {"event": moment(row.time, self._zone), "scored": moment(row.at, self._zone)}
        told |= {"model": row.version or "–", "scores seen": f"{row.count:,}"}
        told |= {called(names, name): visible(v) for name, v in self._board.attributes.of(row.key).items()}
        line = spark([score.probability for score in reversed(scores[:SPARK])])
        head = Text.assemble((key_told(row.key), "bold"), "  ", (percent(row.probability), "bold green"))
        pair: list[RenderableType] = [head, Text(""), _facts(told), Text(""), Text(line, "cyan")]
        self.query_one("#pair", Static).update(Group(*pair))
        table = _scores(self._board, scores, self._zone, names)
        self.query_one("#scores", Static).update(Group(Text("\nIts last scores\n", "bold"), table))
        self.query_one("#why", Static).update(Text("\ncomputing what moved the score …", "dim"))
        self.query_one(VerticalScroll).focus()
        self.run_worker(lambda: self._explain(place), thread=True, exit_on_error=False)

    def _fields(self) -> tuple[str, ...]:
        return self._board.pairs.fields.pair

    def _explain(self, place: Place) -> None:
        told = self._board.why.explain(place)
        self.app.call_from_thread(self.query_one("#why", Static).update, explained(told, self._zone))


class HistoryScreen(Screen[None]):
    """The newest scores of a user or an item."""

    BINDINGS: ClassVar[list[BindingType]] = BACK
    CSS = "HistoryScreen VerticalScroll { padding: 0 1; }"

    def __init__(self, board: Board, field: str, value: object, zone: ZoneInfo) -> None:
        super().__init__()
        self._board, self._field, self._value, self._zone = board, field, value, zone

    def compose(self) -> ComposeResult:
        with VerticalScroll():
            yield Static(id="history")
        yield Footer()

    def on_mount(self) -> None:
        names = self._board.app.settings.names
        scores, pairs = self._board.pairs.history(self._field, self._value, SCORES)
        head = Text(f"{called(names, self._field)} {key_told((self._value,))}", "bold")
        best = f", the best of them {percent(pairs[0].probability)}" if pairs else ""
        told = Text(f"{len(pairs):,} pairs are kept{best}\n", "dim")
        parts: list[RenderableType] = [head, told, _scores(self._board, scores, self._zone, names, with_pair=True)]
        self.query_one("#history", Static).update(Group(*parts))
        self.query_one(VerticalScroll).focus()


class LettersScreen(Screen[None]):
    """Dead letters: how many by reason, the newest of them, and all of the one under the cursor."""

    BINDINGS: ClassVar[list[BindingType]] = BACK
    CSS = """
    LettersScreen Static { padding: 0 1; height: auto; }
    LettersScreen DataTable { height: 1fr; }
    LettersScreen VerticalScroll { height: 12; border-top: solid $primary; }
    """

    def __init__(self, board: Board, zone: ZoneInfo) -> None:
        super().__init__()
        self._board, self._zone = board, zone
        self._letters = board.letters.newest()

    def compose(self) -> ComposeResult:
        yield Static(id="reasons")
        yield DataTable[Text](cursor_type="row")
        with VerticalScroll():
            yield Static(id="letter")
        yield Footer()

    def on_mount(self) -> None:
        counts = self._board.letters.counts()
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in counts.items())
        total = f"{sum(counts.values()):,} dead letters: {reasons}" if counts else "no dead letter"
        self.query_one("#reasons", Static).update(Text(visible(total)))
        table: DataTable[Text] = self.query_one(DataTable)
        table.add_columns("written", "reason", "of", "why")
        for letter in self._letters:
            cells = (moment(letter.at, self._zone), letter.reason, letter.origin, letter.message)
            table.add_row(*(Text(visible(cell), no_wrap=True) for cell in cells))
        table.focus()

    def on_data_table_row_highlighted(self, event: DataTable.RowHighlighted) -> None:
        """The letter under the cursor, whole."""
        if event.cursor_row < len(self._letters):
            letter = self._letters[event.cursor_row]
            cut = ", cut" if letter.cut else ""
            texts = [f"{letter.origin}, {letter.size:,} bytes{cut}", letter.message, f"key {letter.key}", letter.value]
            self.query_one("#letter", Static).update(Text("\n".join(map(visible, texts))))


class Choice(ModalScreen[str | None]):
    """One of several; Escape: none.

    Args:
        title: what is chosen.
        choices: what people read, and what is given back.
    """

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "dismiss(None)", "Back")]
    CSS = """
    Choice { align: center middle; }
    Choice OptionList { width: 60; height: auto; max-height: 80%; border: round $primary; }
    """

    def __init__(self, title: str, choices: Sequence[tuple[str, str]]) -> None:
        super().__init__()
        self._title, self._choices = title, choices

    def compose(self) -> ComposeResult:
        options = OptionList(*(Option(Text(text)) for text, _ in self._choices))
        options.border_title = self._title
        yield options

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(self._choices[event.option_index][1])


class Find(ModalScreen[None]):
    """A user or an item by a part of its name; what is chosen is opened."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "dismiss(None)", "Back")]
    CSS = """
    Find { align: center middle; }
    Find VerticalScroll { width: 60; height: auto; max-height: 80%; border: round $primary; }
    Find OptionList { height: auto; max-height: 20; border: none; }
    """

    def __init__(self, board: Board, zone: ZoneInfo) -> None:
        super().__init__()
        self._board, self._zone = board, zone
        self._found: list[tuple[str, object]] = []

    def compose(self) -> ComposeResult:
        with VerticalScroll():
            yield Input(placeholder="a part of a name, and Enter")
            yield OptionList()

    def on_mount(self) -> None:
        self.query_one(Input).focus()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Looks for it."""
        names, options = self._board.app.settings.names, self.query_one(OptionList)
        matches = self._board.pairs.find(event.value)
        self._found = [(match.field, match.value) for match in matches]
        options.clear_options()
        for match in matches:
            told = f"{called(names, match.field)} {key_told((match.value,))}"
            options.add_option(Option(Text(f"{told}  {match.pairs:,} pairs, best {percent(match.best)}")))
        if matches:
            options.highlighted = 0
            options.focus()
        else:
            options.add_option(Option(Text("nothing that is kept is called so"), disabled=True))

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """Opens its history, in the place of the search."""
        field, value = self._found[event.option_index]
        self.app.switch_screen(HistoryScreen(self._board, field, value, self._zone))


def _facts(told: Mapping[str, str]) -> Table:
    """Names and values, two of each in a line."""
    facts = Table.grid(padding=(0, 2))
    cells = [(Text(visible(name), "dim"), Text(value or "(empty)")) for name, value in told.items()]
    for first, second in itertools.zip_longest(cells[::2], cells[1::2], fillvalue=(Text(), Text())):
        facts.add_row(*first, *second)
    return facts


def _scores(
    board: Board, scores: Sequence[ScoreRow], zone: ZoneInfo, names: dict[str, str], *, with_pair: bool = False
) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    heads = [*(["pair"] if with_pair else []), "scored", "event", "probability", "became", "model"]
    for head in heads:
        table.add_column(head, justify="right" if head == "probability" else "left", no_wrap=True)
    for score in scores[:SCORES]:
        table.add_row(
            *([Text(key_told(score.key))] if with_pair else []),
            moment(score.at, zone),
            moment(score.time, zone),
            percent(score.probability),
            became(board.outcome(score.number)),
            Text(visible(score.version or "–")),
        )
    return table


def explained(told: Explanation, zone: ZoneInfo) -> RenderableType:
    """Why a score is what it is."""
    head = Text("\nWhy\n", "bold")
    if told.missing:
        return Group(head, Text(visible(f"not to be told: {told.missing}"), "yellow"))
    same = f"computed again it is {percent(told.again or 0.0)}"
    if not told.same:
        same += f", published was {percent(told.published)}: rows have come since; the features are those of now"
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name, justify in (("input", "left"), ("value", "left"), ("usual", "left"), ("effect, points", "right")):
        table.add_column(name, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for feature in told.features:
        text = Text(visible(feature.meaning or feature.name))
        text.append(f"\n{visible(feature.name)}", "dim")
        shown = value_told(feature.value, feature.kind, zone)
        moved = Text(f"{feature.moved * 100:+.1f}", "green" if feature.moved > 0 else "red")
        table.add_row(text, Text(shown), _usual(feature, zone), moved)
    return Group(head, Text(same, "dim"), Text(""), table)


def _usual(feature: Feature, zone: ZoneInfo) -> Text:
    is_: Usual | None = feature.usual
    if is_ is None:
        return Text("–")
    if is_.low is not None and is_.high is not None:
        text = f"{is_.low:,.5g}" if is_.low == is_.high else f"{is_.low:,.5g} to {is_.high:,.5g}"
    else:
        text = f"{value_told(is_.value, feature.kind, zone)} ({(is_.share or 0):.0%})"
    return Text.assemble(text, (" unusual", "yellow") if is_.unusual else "")
