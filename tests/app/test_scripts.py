"""The scripts made from an application are, of the tutorial's shop, the tutorial's own, statement by statement."""

from __future__ import annotations

from pathlib import Path

import pytest
from fixtures.applications import make
from places import CASES, SQL

from streaming.app.folder import App, load_app
from streaming.app.scripts import deploy_script, extract_script, load_script, query_text, tables_script
from streaming.app.wrong import WrongApp
from streaming.engine import Engine
from streaming.engine.sql import syntax
from streaming.engine.sql.parse import parse
from streaming.engine.sql.tokens import tokens_of
from streaming.errors import BadInput

DATA = "/root/project/data/JD_data"


@pytest.fixture(scope="module")
def jd() -> App:
    return load_app(SQL / "jd")


def words(text: str) -> list[str]:
    """The tokens, without comments, spaces and the `;` at the end."""
    return [token.text for token in tokens_of(text.rstrip().rstrip(";"))][:-1]


def test_they_are_the_scripts_that_once_were_written_by_hand(jd: App) -> None:
    query = query_text(jd)
    assert query.startswith("select * from")
    deployed = f"USE JD_db; SET @@execute_mode='online'; DEPLOY demo OPTIONS(RANGE_BIAS='inf', ROWS_BIAS='inf') {query}"
    assert words(deploy_script(jd)) == words(deployed)
    session = "USE JD_db; SET @@execute_mode='offline'; SET @@sync_job=true;"
    out = f"{query} INTO OUTFILE '/root/project/out/1' OPTIONS(format='parquet', mode='overwrite')"
    assert words(extract_script(jd)) == words(f"{session} {out}")
    folders = ["action", "flattenRequest_clean", "bo_user", "bo_action", "bo_product", "bo_comment"]
    for mode, how in (("online", "append"), ("offline", "overwrite")):
        loads = ";".join(
            f"LOAD DATA INFILE '{DATA}/{folder}/*.parquet' INTO TABLE {folder.removesuffix('_clean')} "
            f"OPTIONS(format='parquet', header=true, mode='{how}')"
            for folder in folders
        )
        wanted = words(f"USE JD_db; SET @@execute_mode='{mode}'; SET @@sync_job=true; {loads}")
        assert words(load_script(jd, "online" if mode == "online" else "offline", DATA)) == wanted


def test_they_are_the_tutorial_s_but_for_what_it_leaves_to_a_standing_session(jd: App) -> None:
    def tutorial(name: str) -> str:
        return (CASES / f"tutorial_{name}.sql").read_text(encoding="utf-8")

    quiet = "CREATE DATABASE IF NOT EXISTS", "CREATE TABLE IF NOT EXISTS"
    tables = tables_script(jd)
    for text in quiet:
        tables = tables.replace(text, text.removesuffix(" IF NOT EXISTS"))
    assert words(tables) == words(tutorial("tables"))
    deployed = words(deploy_script(jd))
    theirs = [word.removeprefix("fz_") for word in words(tutorial("deploy"))]  # older names of the same functions
    assert deployed[deployed.index("select") :] == theirs[theirs.index("select") :]
    made = [s for s in parse(load_script(jd, "offline", DATA)) if isinstance(s, syntax.LoadData)]
    known = [s for s in parse(tutorial("load")) if isinstance(s, syntax.LoadData)]
    assert [(s.path, s.table, s.options) for s in made] == [(s.path, s.table, s.options) for s in known]
    (written,) = [s for s in parse(extract_script(jd)) if isinstance(s, syntax.Outfile)]
    (wanted,) = [s for s in parse(tutorial("outfile")) if isinstance(s, syntax.Outfile)]
    assert written.path == wanted.path
    assert "INTO OUTFILE" in extract_script(jd)


def test_an_application_without_a_database_names_none(tmp_path: Path) -> None:
    app = load_app(make(tmp_path / "app"))
    assert "USE" not in deploy_script(app) + load_script(app, "online") + extract_script(app)
    assert "DEPLOY demo SELECT id" in deploy_script(app)
    assert "cards/*.csv' INTO TABLE cards OPTIONS(format='csv'" in load_script(app, "offline", formats={"cards": "csv"})
    with pytest.raises(BadInput, match="cannot stand in SQL"):
        extract_script(app, "/it's")


@pytest.mark.parametrize("kind", ["tutorial", "none", "qualified"])
def test_an_application_goes_to_another_database(tmp_path: Path, jd: App, kind: str) -> None:
    if kind == "tutorial":
        app = jd
    elif kind == "none":
        app = load_app(make(tmp_path / "app"))
    else:
        app = load_app(
            make(
                tmp_path / "app",
                tables=("CREATE TABLE payments", "CREATE DATABASE bank; USE bank; CREATE TABLE bank.payments"),
            )
        )
    other = app.deployed_as("elsewhere", "other")
    assert (other.tables.database, other.settings.deployment.name) == ("elsewhere", "other")
    assert (other.tables.columns, other.digest) == (app.tables.columns, app.digest)
    assert app.deployed_as() == app
    engine = Engine()
    engine.execute(tables_script(other))
    engine.execute(deploy_script(other))
    assert [d.name for d in engine.deployments("elsewhere")] == ["other"]
    assert engine.databases() == ["elsewhere"]


def test_a_query_that_names_its_database_cannot_go_to_another(tmp_path: Path) -> None:
    app = load_app(
        make(
            tmp_path / "app",
            tables=("CREATE TABLE payments", "CREATE DATABASE bank; USE bank; CREATE TABLE payments"),
            features=("JOIN cards ORDER", "JOIN bank.cards ORDER"),
        )
    )
    with pytest.raises(WrongApp, match="bank"):
        app.deployed_as("elsewhere")


def test_a_database_whose_name_is_a_keyword_or_has_odd_letters_stands_in_backquotes() -> None:
    for name in ("order", "my näme"):
        app = load_app(SQL / "jd").deployed_as(name)
        assert f"USE `{name}`;" in tables_script(app)
        assert f"USE `{name}`;" in deploy_script(app)
        engine = Engine()
        engine.execute(tables_script(app))
        engine.execute(deploy_script(app))
