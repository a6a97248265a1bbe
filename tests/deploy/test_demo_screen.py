"""What the demo shows: a line for each step, all of a command's output in the log; and what a recording keeps of it."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rich.console import Console

from deploy.demo.recording import MOMENTS, last_shown, moments, picture, record
from deploy.demo.screen import WIDTH, Screen, Step


def screen(tmp_path: Path, terminal: bool = False, width: int = WIDTH) -> tuple[Screen, io.StringIO]:
    sink = io.StringIO()
    made = Screen(Console(file=sink, width=width, force_terminal=terminal, highlight=False))
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
        step.latest = "51,888 requests x 42 columns"
        assert step.latest in step.working(WIDTH).plain
        step.latest = "250 of 1,000 requests"
        assert f"{'━' * 6}{'╌' * 18} 250 of 1,000" in step.working(WIDTH).plain
        step.watch(lambda: (500, 1000))
        line = step.working(WIDTH).plain
        assert re.search(r" (━{2,9})(╌{2,9}) 500 of 1,000 ", step.working(50).plain)
        step.watch(lambda: (0, 0))
        assert "╌" not in step.working(WIDTH).plain
    assert f"{'━' * 12}{'╌' * 12} 500 of 1,000" in line
    assert len(line) <= WIDTH


@pytest.mark.parametrize("width", [0, 20, 40, 60, WIDTH, 200])
@pytest.mark.parametrize(
    "latest", ["", "step 25 (epoch 0.25): " + "loss 0.1207, val AUC 0.8365, " * 9, "1 of 9 requests"]
)
def test_a_line_while_it_works_is_one_line_of_any_terminal(latest: str, width: int) -> None:
    step = Step(3, "training")
    step.latest = latest
    line = step.working(width).plain
    assert re.search(r" \d+\.\d s$", line)
    assert len(line) < max(width, 32)


def test_a_result_that_a_narrow_terminal_has_no_room_for_is_not_cut(tmp_path: Path) -> None:
    made, sink = screen(tmp_path, width=60)
    where = "ready, metrics at http://127.0.0.1:34541/metrics"
    with made.step(7, "scorer") as step:
        step.result = where
    with made.step(8, "stream") as step:
        step.result = "short"
    _, scorer, result, _, stream = sink.getvalue().splitlines()
    assert scorer.startswith("7/9 scorer ")
    assert result == f"    {where}"
    assert re.fullmatch(r"8/9 stream +short +\d\.\d s", stream)
    assert max(map(len, (scorer, result, stream))) < 60


def test_an_ascii_terminal_gets_ascii(tmp_path: Path) -> None:
    sink = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    made = Screen(Console(file=sink, width=WIDTH, highlight=False))
    with made.step(8, "stream") as step:
        step.watch(lambda: (1, 2))
        assert "############------------ 1 of 2" in step.working(WIDTH).plain
        step.result = "x" * WIDTH
    sink.seek(0)
    begun, done = sink.read().splitlines()
    assert begun == "8/9 stream ..."
    assert "xxx..." in done


def test_a_terminal_that_cannot_overwrite_is_told_when_a_step_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "dumb")
    made, sink = screen(tmp_path, terminal=True)
    with made.step(1, "data"):
        assert sink.getvalue() == "1/9 data …\n"


def test_a_step_says_which_command_runs_until_that_says_something(tmp_path: Path) -> None:
    made, _ = screen(tmp_path)
    with made.step(4, "evaluation") as step:
        made.run([sys.executable, "-c", ""], "jd-intent-batch evaluate --dataset d", tmp_path)
        assert step.latest == "jd-intent-batch evaluate"


def test_ctrl_c_says_which_step_was_stopped(tmp_path: Path) -> None:
    made, sink = screen(tmp_path, terminal=True)
    with pytest.raises(KeyboardInterrupt), made.step(1, "data"):
        raise KeyboardInterrupt
    assert re.search(r"data.*stopped .*s", last_shown([(0.0, sink.getvalue())])[0])


def test_a_step_that_fails_is_not_said_to_be_done(tmp_path: Path) -> None:
    made, sink = screen(tmp_path)
    with pytest.raises(ValueError, match="no"), made.step(1, "data"):
        status, said = made.run([sys.executable, "-c", "raise SystemExit('[red]why[/red]')"], "c", tmp_path)
        assert status == 1
        made.failed(said)
        raise ValueError("no")
    lines = sink.getvalue().splitlines()
    assert lines[:2] == ["1/9 data …", "  [red]why[/red]"]
    assert re.fullmatch(r"1/9 data +failed +\d\.\d s", lines[2])
    assert len(lines) == 3


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
    text = picture(moments(shown), 28, "title")
    ElementTree.fromstring(text)
    assert "bold" in text
    assert ">title<" in text
    assert "font-face" not in text
    assert "url(http" not in text


def texts(picture: str) -> dict[str, tuple[str, float, bool]]:
    """What a picture shows → its animation, its height, and whether it is there at the end."""
    svg = ElementTree.fromstring(picture)
    found = {}
    for group in svg.iter("{http://www.w3.org/2000/svg}g"):
        if group.get("style"):
            inside = list(group)
            moved = re.fullmatch(r"translate\(0, (-?[\d.]+)\)", group.get("transform", ""))
            assert moved is not None
            said = "".join(part.text or "" for part in inside).replace("\xa0", " ").strip()
            name = group.get("style", "").removeprefix("animation-name: ")
            found[said] = (name, float(inside[0].get("y", "")) + float(moved[1]), group.get("class") == "s")
    return found


def test_a_picture_plays_what_was_overwritten_and_ends_with_what_stands_there() -> None:
    shown = [(0.0, "one\n"), (4.0, "two at work"), (6.0, "\r\x1b[2Ktwo is done\n"), (10.0, "\x1b[32mthree\x1b[0m\n")]
    text = picture(moments(shown), 28, "make demo")
    found = texts(text)
    assert {said for said, (_, _, stays) in found.items() if stays} == {"one", "two is done", "three"}
    working, done = found["two at work"], found["two is done"]
    assert not working[2]
    assert working[1] == done[1] == pytest.approx(found["one"][1] + 24.4)
    left = re.search(rf"@keyframes {working[0]} .*visible }} ([\d.]+)% {{ visibility: hidden }}", text)
    came = re.search(rf"@keyframes {done[0]} .*?([\d.]+)% {{ visibility: visible }}", text)
    assert left is not None
    assert came is not None
    # √6 for the six seconds until the second line was there, √4 for the four until the third was
    assert float(left[1]) == float(came[1]) == pytest.approx(55, abs=100 / MOMENTS)
    assert "prefers-reduced-motion" in text


def test_a_picture_has_so_many_moments_at_most(tmp_path: Path) -> None:
    shown = [(number / 10, f"\r\x1b[2K{number}") for number in range(5000)]
    found = moments(shown)
    assert len(found) == MOMENTS
    assert found[-1][1] == ["4999"]
    assert [at for at, _ in found] == sorted(at for at, _ in found)
    assert picture(found, 28, "t").count("<g class") < MOMENTS + 3
