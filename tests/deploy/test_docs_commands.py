"""The commands that README and docs show: each parses, each of ours is named, the tutorial's run in their order."""

from __future__ import annotations

import itertools
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main
from places import REPOSITORY
from typer.testing import CliRunner

import batch.cli.commands
import streaming.cli.commands
from batch.world.generate import generate_world

DOCS = REPOSITORY / "docs"
PAGES = [REPOSITORY / "README.md", *sorted(DOCS.rglob("*.md"))]
PROGRAMS: dict[str, Any] = {
    "jd-intent-score": typer.main.get_command(streaming.cli.commands.app),
    "jd-intent-batch": typer.main.get_command(batch.cli.commands.app),
}


def commands(page: Path) -> list[tuple[str, bool]]:
    """What a page shows of our commands, and whether in full: code blocks and tables are, prose may name a part.

    What stands for several commands is left out: […], `A | B`, …. What follows a `>` is the shell's.
    """
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"^```[a-z]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [
        re.split("  #| > ", line)[0].strip() for block in blocks for line in block.replace("\\\n", " ").splitlines()
    ]
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL).splitlines()
    spans = [(span, line.startswith("|")) for line in prose for span in re.findall(r"`([^`]+)`", line)]
    found = [(line, True) for line in lines] + spans
    return [(line, full) for line, full in found if line.split(" ")[0] in PROGRAMS and not re.search(r"[\[|…]", line)]


SHOWN = sorted(
    {
        (page.relative_to(REPOSITORY).as_posix(), line, full)
        for page in PAGES
        for line, full in commands(page)
        if len(line.split()) > 1
    }
)


def test_pages_show_commands() -> None:
    assert {name.rpartition("/")[0] for name, _, _ in SHOWN} >= {"docs/tutorial", "docs/how-to", "docs/reference"}
    assert sum(full for _, _, full in SHOWN) >= 15


@pytest.mark.parametrize(("page", "line", "full"), SHOWN)
def test_every_command_that_is_shown_parses(
    page: str, line: str, full: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    program, name, *words = shlex.split(line)
    group = PROGRAMS[program]
    while words and hasattr(inner := group.commands.get(name), "commands"):  # `dlq list`
        group, name, *words = inner, *words
    assert name in group.commands, f"{page}: {line}"
    options = {option for parameter in group.commands[name].params for option in parameter.opts}
    for word in words:
        assert not word.startswith("--") or word.split("=")[0] in options, f"{page}: {line}: no option {word}"
    if full and words:
        # Parses options and their types, and misses what is required, as the command line does; nothing is run.
        with group.commands[name].make_context(name, words):
            pass


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_command_is_named(program: str) -> None:
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    missing = [name for name in PROGRAMS[program].commands if f"{program} {name}" not in text]
    assert not missing, f"no page names {program} {', '.join(missing)}"


def tutorial() -> list[str]:
    """Our commands in the table of the tutorial's steps, in order."""
    page = (DOCS / "tutorial" / "openmldb-oneflow.md").read_text()
    section = page.split("\n\nThere are two environments")[0]
    cells = [row.split(" | ")[-1] for row in section.splitlines() if row.startswith("|")]
    return [span for cell in cells for span in re.findall(r"`((?:jd-intent|python -m)[^`]+)`", cell)]


def test_the_tutorial_s_steps_follow_each_other() -> None:
    names = [" ".join(line.split()[:2]) if line.startswith("jd") else line.split()[2] for line in tutorial()]
    assert names == [
        "jd-intent-score sql",
        "jd-intent-score explain",
        "jd-intent-batch extract",
        "jd-intent-batch prepare",
        "jd-intent-batch train",
        "jd-intent-batch evaluate",
        "jd-intent-score print-script",
        "jd-intent-batch export",
        "deploy.triton.server",
        "jd-intent-score serve",
        "jd-intent-score predict",
        "jd-intent-score run",
    ]
    made: set[str] = {"DATA"}
    for line in tutorial():
        words = shlex.split(line)
        for option, value in itertools.pairwise(words):
            place = re.fullmatch(r"(DATA|FEATURES|DATASET|CHECKPOINT|ARTIFACT)(/\w+)?", value)
            if place is not None:
                assert option == "--out" or place[1] in made, f"{line}: nothing before it makes {place[1]}"
                made.add(place[1])
    server = next(line for line in tutorial() if line.startswith("python"))
    source = (REPOSITORY / "deploy" / "triton" / "server.py").read_text()
    assert all(f'"{option}"' in source for option in re.findall(r"--\w+", server))


def test_the_scorer_s_part_of_the_tutorial_runs_as_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generate_world(tmp_path / "DATA", 80, 5, 70)
    monkeypatch.chdir(tmp_path)
    for line in tutorial()[2:4]:
        program, *words = shlex.split(line)
        assert program == "jd-intent-batch"
        done = CliRunner().invoke(batch.cli.commands.app, words)
        assert done.exit_code == 0, f"{line}: {done.output}{done.exception!r}"
    lines = done.output.splitlines()
    samples = [line for line in lines if re.fullmatch(r"(train|val|test) samples = \d+", line)]
    assert len(samples) == 3, "as the tutorial prints them"
    sizes = lines[lines.index("table size array:") + 1]
    assert len(sizes.split(",")) == 41
