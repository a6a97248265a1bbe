"""The feature query is written once, is the tutorial's, and stands in the scripts that are made from it."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
from fixtures.applications import make
from fixtures.jd import jd
from places import CASES, SQL
from typer.testing import CliRunner

from streaming.app import scripts
from streaming.app.wrong import WrongApp
from streaming.cli.commands import app
from streaming.engine import Engine, UnsupportedSQL
from streaming.engine.sql.tokens import tokens_of
from streaming.errors import ConfigError
from streaming.store.sql_scripts import FEATURES, read_script, within

FEATURES_SHA256 = "72d48f25f2022a92d80dfe7258349366c82ba36e918f1ec0ba397bba89865477"
"""Of the whole text: artifacts hold it, and the digest of the application is over it."""

SCRIPTS = {
    "deploy.sql": "-- Deploys.\nUSE JD_db;\nDEPLOY demo {features.sql};\n",
    "select_into_outfile.sql": "{features.sql}\nINTO OUTFILE '/out' OPTIONS(format='parquet');\n",
}
"""A user's own, around the query of an application."""


@pytest.fixture
def sql(tmp_path: Path) -> Path:
    """A copy of sql/jd, and scripts that take its query."""
    folder = Path(shutil.copytree(SQL / "jd", tmp_path / "sql"))
    for name, text in SCRIPTS.items():
        (folder / name).write_text(text)
    return folder


def words(text: str) -> list[str]:
    """The tokens of a script as this release spells them: `fz_top1_ratio` is an older name of `top1_ratio`."""
    return [token.text.removeprefix("fz_") for token in tokens_of(text) if token.kind != "end"]


def printed(*arguments: str) -> str:
    """What `print-script` prints."""
    done = CliRunner().invoke(app, ["print-script", *arguments])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_the_query_is_written_once() -> None:
    with_query = [file.name for file in (SQL / "jd").iterdir() if "out0.reqId_1" in file.read_text()]
    assert with_query == [FEATURES]


def test_the_query_is_the_same_in_every_release() -> None:
    assert hashlib.sha256((SQL / "jd" / FEATURES).read_bytes()).hexdigest() == FEATURES_SHA256


def test_a_printed_script_is_the_application_s() -> None:
    shop = jd()
    assert printed("tables") == printed("tables", "--app", str(SQL / "jd")) == scripts.tables_script(shop)
    assert printed("deploy") == scripts.deploy_script(shop)
    assert printed("load-online") == scripts.load_script(shop, "online")
    assert printed("load-offline", "--data", "/mine") == scripts.load_script(shop, "offline", "/mine")
    assert printed("extract") == scripts.extract_script(shop)
    assert printed("extract", "--out", "/there") == scripts.extract_script(shop, "/there")


def test_a_printed_script_runs_on_the_engine(tmp_path: Path) -> None:
    folder = str(make(tmp_path / "app"))
    engine = Engine()
    for name in ("tables", "deploy"):
        engine.execute(printed(name, "--app", folder))
    assert engine.schema("demo").names == ["id", "amount", "payments_1h", "country"]


def test_an_application_that_is_none_is_refused_with_its_place(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["print-script", "deploy", "--app", str(tmp_path / "none")])
    assert isinstance(done.exception, WrongApp)
    assert str(tmp_path / "none") in str(done.exception)
    assert CliRunner().invoke(app, ["print-script", "deploy.sql"]).exit_code == 2


@pytest.mark.parametrize(
    ("name", "tutorial", "begin", "end"),
    [("deploy", "tutorial_deploy.sql", "select", ";"), ("extract", "tutorial_outfile.sql", "select", "INTO")],
)
def test_the_query_in_a_script_is_the_tutorials(name: str, tutorial: str, begin: str, end: str) -> None:
    def query(text: str) -> list[str]:
        found = words(text)
        found = found[found.index(begin) :]
        return found[: [word.upper() for word in found].index(end)]

    made = query(printed(name))
    assert made == query((CASES / tutorial).read_text())
    assert made == words(read_script(SQL / "jd" / FEATURES).text)[:-1]


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
        (None, ConfigError, r"scripts: .*features\.sql cannot be read: No such file"),
    ],
)
def test_a_query_that_cannot_be_taken_is_refused_by_file(
    sql: Path, text: str | None, error: type[Exception], message: str
) -> None:
    (sql / FEATURES).unlink()
    if text is not None:
        (sql / FEATURES).write_text(text)
    with pytest.raises(error, match=message):
        read_script(sql / "deploy.sql", "scripts")


def test_a_script_without_the_placeholder_needs_no_other_file(tmp_path: Path) -> None:
    (tmp_path / "deploy.sql").write_text("DEPLOY d SELECT 1;")
    script = read_script(tmp_path / "deploy.sql")
    assert script.text == "DEPLOY d SELECT 1;"
    assert script.files == (tmp_path / "deploy.sql",)
