"""`jd-intent-score sql` and `explain`: the tutorial's scripts as they stand, a prompt, errors with their place."""

from __future__ import annotations

import io
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from places import SQL
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput
from rich.console import Console
from typer.testing import CliRunner

from streaming.cli.commands import app
from streaming.cli.sql_shell import Shell, _prompt, mapped, statements_of
from streaming.engine import UnsupportedSQL

WINDOW = "window w as (partition by k order by ts rows between 3 preceding and current row)"
TABLE = """-- semicolons; in comments and 'texts;' end nothing
create table t(k string, ts timestamp, s string default 'a;b', index(key=k, ts=ts, ttl=(10m,3), ttl_type=absorlat));
insert into t values ('a', 1000, 'x;y'), ('b', 2000, null);
"""


def said(statements: str, width: int = 200) -> str:
    out = io.StringIO()
    one = Shell({}, Console(file=out, width=width))
    one.script(TABLE + statements)
    return out.getvalue()


def test_statements_end_at_semicolons_and_keep_their_place() -> None:
    script = "select ';' /* ; */;\n\n; select\n 2"
    found = list(statements_of(script))
    assert [ended for _, ended in found] == [True, False]
    assert [text.strip() for text, _ in found] == ["select ';' /* ; */", "select\n 2"]
    assert found[1][0] == script.replace("select ';' /* ; */;", " " * 19).replace(";", " ")
    assert list(statements_of("select 'open ;")) == [("select 'open ;", False)]


def test_results_show_values_nulls_and_counts() -> None:
    text = said("select k, s, 1 + 1 as two from t;")
    assert "│ a │ x;y  │ 2   │" in text
    assert "│ b │ NULL │ 2   │" in text
    assert "2 rows of 3 columns" in text
    narrow = said("select k, s, ts, 1 as one from t;", width=40)
    assert "row 0" in narrow
    assert "│ s      │ x;y" in narrow


def test_what_there_is_can_be_asked() -> None:
    text = said(
        f"show tables; desc t; deploy d select k, count(s) over w as n from t {WINDOW}; show deployments;"
        f"show deployment d; explain select min(ts) over w as n from t {WINDOW}; show databases;"
    )
    assert "│ t     │ 2    │" in text
    assert "│ s      │ string    │      │ a;b     │" in text
    assert "absorlat: 10 min, 3 rows" in text
    assert "│ d          │ 2       │ t      │" in text
    assert "│ n      │ bigint │" in text
    assert "rows 3 … 0: n" in text
    with pytest.raises(KeyError, match="unknown deployment x"):
        said("show deployment x;")


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("select 1 as one;\nselect k,\n  nosuch from t;", ["unknown table t at 3:15"]),
        ("select 1 as one;\nselect 'open;", ["an unclosed string at 2:8\n  select 'open;\n         ^"]),
        ("load data infile '/none/*.parquet' into table t options(format='parquet');", ["unknown table t at 1:"]),
    ],
)
def test_an_error_names_file_line_and_column(script: str, words: list[str], tmp_path: Path) -> None:
    path = tmp_path / "wrong.sql"
    path.write_text(script)
    done = CliRunner().invoke(app, ["sql", str(path)])
    assert done.exit_code == 2
    for word in words:
        assert word in done.stderr
    assert done.stderr.startswith(f"{path}: ")


def test_csv_comes_from_scripts_and_from_stdin() -> None:
    for arguments, typed in (
        (["--csv"], "select 1 as a, 'x' as b;"),
        (["--csv", "-e", "select 1 as a, 'x' as b"], None),
    ):
        done = CliRunner().invoke(app, ["sql", *arguments], input=typed)
        assert (done.exit_code, done.stdout) == (0, "a,b\n1,x\n")
    with pytest.raises(UnsupportedSQL, match="not as PREFIX=FOLDER"):
        mapped(["/root"])


def test_the_tutorials_scripts_run_as_they_stand(jd: Path, tmp_path: Path) -> None:
    data = tmp_path / "JD_data"
    data.mkdir()
    for folder in jd.iterdir():
        (data / folder.name).symlink_to(folder)
    (data / "action").mkdir()
    times = {name: pa.timestamp("us") for name in ("eventTime", "ingestionTime")}
    schema = pa.schema({"reqId": pa.string(), **times, "actionValue": pa.int32()})
    pq.write_table(schema.empty_table(), data / "action" / "empty.parquet")
    scripts = [str(tmp_path / f"{name}.sql") for name in ("tables", "load-offline", "extract")]
    for script in scripts:
        printed = CliRunner().invoke(app, ["print-script", Path(script).stem])
        assert printed.exit_code == 0
        Path(script).write_text(printed.stdout)
    maps = ["--map", f"/root/project/data={tmp_path}", "--map", f"/root/project/out={tmp_path / 'out'}"]
    done = CliRunner().invoke(app, ["sql", *scripts, *maps, "-e", "show tables"])
    assert done.exit_code == 0, done.stderr
    loaded = "LOAD DATA INFILE '/root/project/data/JD_data/bo_action/*.parquet' INTO TABLE bo_action OPTIONS: ok"
    assert f"{loaded}, JD_db.bo_action +89,187 rows" in done.stdout
    written = pq.read_table(tmp_path / "out") if list(tmp_path.glob("out/*/*.parquet")) else None
    parts = list((tmp_path / "out").rglob("part-*.csv"))
    rows = written.num_rows if written is not None else sum(pyarrow.csv.read_csv(part).num_rows for part in parts)
    assert rows == 13_916


def test_a_missing_file_is_named_with_the_place_of_its_statement(tmp_path: Path) -> None:
    script = tmp_path / "load.sql"
    script.write_text("create table t(a int);\n-- a comment\n  load data infile '/no/such/*.csv' into table t;\n")
    done = CliRunner().invoke(app, ["sql", str(script)])
    assert done.exit_code == 2
    assert done.stderr == f"{script}: 3:3: /no/such/*.csv: no such file\n"
    assert done.stdout.startswith("create table t: ok")


def test_the_prompt_reads_statements_of_several_lines_and_goes_on_after_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    out, errors = io.StringIO(), io.StringIO()
    one = Shell({}, Console(file=out, width=200))
    with create_pipe_input() as keys, create_app_session(input=keys, output=DummyOutput()):
        keys.send_text("create database shop; use shop;\rselect nosuch;\rselect 40 +\r 2 as answer;\r")
        keys.send_text('create table t(k string, ts bigint);\rdeploy d select k from t;\r.request d {"k": "me"}\r')
        keys.send_text(".help\r.quit\r")
        _prompt(one, Console(file=errors, width=200))
    assert "│ 42     │" in out.getvalue()
    assert "│ me │" in out.getvalue()
    assert ".read FILE" in out.getvalue()
    assert "unknown column nosuch at 1:8" in errors.getvalue()
    assert "select 40 +" in (tmp_path / "jd-intent-scorer" / "sql_history").read_text()


def test_explain_prints_plan_indexes_and_times_to_live(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["explain", str(SQL / "jd" / "features.sql")])
    assert done.exit_code == 0
    assert "window: one walk over JD_db.bo_action by pair_id" in done.stdout
    assert "one count for bo_action_type_multi_unique_count_21 and bo_action_type_multi_top3frequency_42" in done.stdout
    assert "index: JD_db.bo_user (key user_id), made by DEPLOY, rows live for ever" in done.stdout
    script = tmp_path / "deploy.sql"
    script.write_text(
        "deploy d options(range_bias=1h, rows_bias=5) select count(k) over w as n, count(k) over v as m from t "
        + WINDOW
        + ", v as (partition by k order by ts rows_range between 1d preceding and current row);"
    )
    tables = tmp_path / "made.sql"
    tables.write_text("create table t(k string, ts timestamp);")
    done = CliRunner().invoke(app, ["explain", str(script), "--tables", str(tables)])
    assert "made by DEPLOY, rows live 25h by the wall clock or as the newest 8 of their key" in done.stdout


def test_explain_refuses_what_no_cluster_compiles_unless_told(tmp_path: Path) -> None:
    script, tables = tmp_path / "query.sql", tmp_path / "made.sql"
    script.write_text("select x.n from t last join (select k, ts as n, ts + 1 as m from u) x on t.k = x.k;")
    tables.write_text("create table t(k string, ts timestamp); create table u(k string, ts timestamp);")
    asked = ["explain", str(script), "--tables", str(tables)]
    refused = CliRunner().invoke(app, asked)
    assert "unsupported by OpenMLDB: a sub-query that computes" in f"{refused.output} {refused.exception}"
    assert CliRunner().invoke(app, [*asked, "--embedded"]).exit_code == 0


@pytest.mark.parametrize("names", [["tables.sql"], ["create_tables.sql"], ["tables.sql", "create_tables.sql"]])
def test_explain_takes_the_tables_beside_the_query(names: list[str], tmp_path: Path) -> None:
    script = tmp_path / "query.sql"
    script.write_text("select k from t;")
    for name, column in zip(names, ("k", "other"), strict=False):
        (tmp_path / name).write_text(f"create table t({column} string, ts timestamp);")
    assert CliRunner().invoke(app, ["explain", str(script)]).exit_code == 0
