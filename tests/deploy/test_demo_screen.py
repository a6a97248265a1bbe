"""What the demo shows: a line for each step, all of a command's output in the log; and what a recording keeps of it."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rich.console import Console

from deploy.demo.recording import last_shown, picture, record
from deploy.demo.screen import WIDTH, Screen


def screen(tmp_path: Path, terminal: bool = False) -> tuple[Screen, io.StringIO]:
    sink = io.StringIO()
    made = Screen(Console(file=sink, width=WIDTH, force_terminal=terminal, highlight=False))
    made.log = tmp_path / "steps.log"
    return made, sink


def test_a_step_is_a_line_while_it_works_and_one_when_it_is_done(tmp_path: Path) -> None:
    made, sink = screen(tmp_path)
    with made.step(3, "training") as step:
        status, said = made.run([sys.executable, "-c", "print('noise'); print('[b]more[/b]')"], "train", tmp_path)
        assert step.latest == "[b]more[/b]"
        step.result = "a result that is longer than any line may be, " * 4
    assert (status, said) == (0, ["noise", "[b]more[/b]"])
    first, second = sink.getvalue().splitlines()
    assert first == "3/9 training …"
    assert second.startswith("3/9 training         a result")
    assert "…" in second
    assert second.endswith(" s")
    assert len(second) <= WIDTH
    assert (tmp_path / "steps.log").read_text() == "$ train\nnoise\n[b]more[/b]\n"


def test_a_bar_shows_how_much_is_done(tmp_path: Path) -> None:
    made, _ = screen(tmp_path)
    with made.step(8, "stream") as step:
        step.watch(lambda: (500, 1000))
        line = step.working().plain
        step.watch(lambda: (0, 0))
        assert "╌" not in step.working().plain
    assert f"{'━' * 12}{'╌' * 12} 500 of 1,000" in line
    assert len(line) <= WIDTH


def test_a_step_that_fails_is_not_said_to_be_done(tmp_path: Path) -> None:
    made, sink = screen(tmp_path)
    with pytest.raises(ValueError, match="no"), made.step(1, "data"):
        status, said = made.run([sys.executable, "-c", "raise SystemExit('[red]why[/red]')"], "c", tmp_path)
        assert status == 1
        made.failed(said)
        raise ValueError("no")
    assert sink.getvalue().splitlines() == ["1/9 data …", "  [red]why[/red]"]


def test_on_a_terminal_only_the_line_that_says_done_is_left(tmp_path: Path) -> None:
    made, sink = screen(tmp_path, terminal=True)
    for number, name in ((1, "data"), (2, "features")):
        with made.step(number, name) as step:
            step.latest = "at work"
            step.result = f"made {name}"
    lines = last_shown([(0.0, sink.getvalue())])
    assert ["made data" in lines[0], "made features" in lines[1], lines[2:]] == [True, True, [""]]
    assert "at work" not in "".join(lines)
    assert "\x1b[32m" in lines[0]


def test_a_recording_is_a_picture_that_fetches_nothing() -> None:
    status, shown = record([sys.executable, "-c", "print('\\x1b[1mbold\\x1b[0m <&> 1'); raise SystemExit(3)"])
    assert status == 3
    text = picture(last_shown(shown), "title")
    ElementTree.fromstring(text)
    assert "bold" in text
    assert ">title<" in text
    assert "font-face" not in text
    assert "url(http" not in text
