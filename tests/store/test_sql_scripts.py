"""The feature query is written once, is the tutorial's, and stands in the scripts that deploy and extract it."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
from places import CASES, SQL
from typer.testing import CliRunner

from streaming.cli.commands import app
from streaming.engine import UnsupportedSQL
from streaming.engine.sql.tokens import tokens_of
from streaming.errors import ConfigError
from streaming.store.sql_scripts import FEATURES, read_script, within

DIGESTS = {
    "deploy.sql": "1575fe71eb3fed2a6a5c36b1cccc7cccf001ec9786bc90ee8b4fbf20288943d8",
    "select_into_outfile.sql": "a62280c2f316a26933ea20348c6d4b7be7de674c3060a70adc8f4b3eeffd0e9d",
    FEATURES: "b85735d35ab3a061ad5f6711ada5207646ce9f1bbceeb772607c7b9e25effc83",
}
"""sha256 of the whole texts: snapshots and artifacts of older releases hold them."""


@pytest.fixture
def sql(tmp_path: Path) -> Path:
    """A copy of sql/."""
    return Path(shutil.copytree(SQL, tmp_path / "sql"))


def words(text: str) -> list[str]:
    """The tokens of a script as this release spells them: `fz_top1_ratio` is an older name of `top1_ratio`."""
    return [token.text.removeprefix("fz_") for token in tokens_of(text) if token.kind != "end"]


def test_the_query_is_written_once() -> None:
    with_query = [file.name for file in SQL.glob("*.sql") if "out0.reqId_1" in file.read_text()]
    assert with_query == [FEATURES]


@pytest.mark.parametrize("name", DIGESTS)
def test_a_printed_script_is_whole_and_the_same_in_every_release(name: str) -> None:
    done = CliRunner().invoke(app, ["print-script", str(SQL / name)])
    assert done.exit_code == 0
    assert done.stdout == read_script(SQL / name).text
    assert hashlib.sha256(done.stdout.encode()).hexdigest() == DIGESTS[name]


@pytest.mark.parametrize(
    ("name", "tutorial", "begin", "end"),
    [
        ("deploy.sql", "tutorial_deploy.sql", "select", ";"),
        ("select_into_outfile.sql", "tutorial_outfile.sql", "select", "INTO"),
    ],
)
def test_the_query_in_a_script_is_the_tutorials(name: str, tutorial: str, begin: str, end: str) -> None:
    def query(text: str) -> list[str]:
        found = words(text)
        found = found[found.index(begin) :]
        return found[: [word.upper() for word in found].index(end)]

    printed = query(read_script(SQL / name).text)
    assert printed == query((CASES / tutorial).read_text())
    assert printed == words(read_script(SQL / FEATURES).text)[:-1]


def test_an_error_in_the_query_is_placed_in_its_own_file(sql: Path) -> None:
    for name in ("deploy.sql", "select_into_outfile.sql"):
        script = read_script(sql / name)
        for offset in range(0, len(script.text), 7):
            place = script.place_at(offset)
            written = place.path.read_text().split("\n")[place.line - 1]
            assert script.line(place) == written
            if script.text[offset] != "\n":
                assert written[place.column - 1] == script.text[offset]
        with pytest.raises(UnsupportedSQL) as told, within(script):
            raise UnsupportedSQL("no such thing at 40:5\n  the line", 40, 5)
        path, line, column = script.place(40, 5)
        assert path.name == FEATURES
        assert str(told.value) == f"{path}: no such thing at {line}:{column}\n  the line"
        assert (told.value.line, told.value.column) == (line, column)


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("", ConfigError, r"features\.sql: deploy\.sql takes one query from it, and it has 0 statements"),
        ("select 1; select 2;", ConfigError, r"takes one query from it, and it has 2 statements"),
        ("select 1 as x;\n-- it's said\nselect 'open;", UnsupportedSQL, r"features\.sql: .*unclosed string at 3:8"),
        (None, ConfigError, r"store\.sql: .*features\.sql cannot be read: No such file"),
    ],
)
def test_a_query_that_cannot_be_taken_is_refused_by_file(
    sql: Path, text: str | None, error: type[Exception], message: str
) -> None:
    (sql / FEATURES).unlink()
    if text is not None:
        (sql / FEATURES).write_text(text)
    with pytest.raises(error, match=message):
        read_script(sql / "deploy.sql", "store.sql")


def test_a_script_without_the_placeholder_needs_no_other_file(tmp_path: Path) -> None:
    (tmp_path / "deploy.sql").write_text("DEPLOY d SELECT 1;")
    script = read_script(tmp_path / "deploy.sql")
    assert script.text == "DEPLOY d SELECT 1;"
    assert script.files == (tmp_path / "deploy.sql",)
