"""The deployed query must be the artifact's: what differs is named by file and line."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest
from fixtures.scorer import Stage, save_sql
from places import SQL

from streaming.errors import ArtifactMismatch, ConfigError
from streaming.loop.run import run
from streaming.model.artifact import check_sql
from streaming.predict import server
from streaming.web.listen import Listen


@pytest.fixture
def sql(tmp_path: Path) -> Path:
    """A copy of sql/."""
    return Path(shutil.copytree(SQL, tmp_path / "sql"))


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    """An artifact of the shipped query, without a model."""
    (tmp_path / "artifact").mkdir()
    save_sql(tmp_path / "artifact")
    return tmp_path / "artifact"


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new, 1), encoding="utf-8")


def test_the_shipped_pair_belongs_together(sql: Path, artifact: Path) -> None:
    check_sql(sql, artifact, "demo")


def test_comments_white_space_and_options_are_no_difference(sql: Path, artifact: Path) -> None:
    edit(sql / "features.sql", "select\n", "select -- all of them;\n\n  /* here; */ ")
    edit(sql / "deploy.sql", "DEPLOY demo OPTIONS(RANGE_BIAS='inf', ROWS_BIAS='inf')", "DEPLOY IF NOT EXISTS `demo`")
    edit(sql / "deploy.sql", "USE JD_db;", "USE JD_db; DEPLOY other select 1;")
    check_sql(sql, artifact, "demo")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("rows_range between 14d preceding", "rows_range between 13d preceding"),
        ("MAXSIZE 200", "MAXSIZE 20"),
        ("'' as `has_bad_comment`", "' ' as `has_bad_comment`"),
        ("on out0.reqId_1 = out3.reqId_17", "on out0.reqId_1 = out3.reqId_17 where true"),
        ("on out0.reqId_1 = out3.reqId_17", ""),
    ],
)
def test_another_query_is_refused_by_file_and_line(sql: Path, artifact: Path, old: str, new: str) -> None:
    edit(sql / "features.sql", old, new)
    with pytest.raises(ArtifactMismatch) as caught:
        check_sql(sql, artifact, "demo")
    _, deployed, trained = str(caught.value).split("\n")
    file = sql / ("deploy.sql" if " query ends" in deployed else "features.sql")
    assert deployed.startswith(f"  {file}")
    assert trained.startswith(f"  {artifact / 'features.sql'}")
    lines = (sql / "features.sql").read_text(encoding="utf-8").split("\n")
    if " query ends" not in deployed:
        number = int(deployed.removeprefix(f"  {file}:").split(":")[0])
        assert deployed.endswith(lines[number - 1].strip())
        assert new in lines[number - 1]


def test_a_changed_or_incomplete_artifact_is_refused(sql: Path, artifact: Path) -> None:
    edit(artifact / "features.sql", "14d", "13d")
    with pytest.raises(ArtifactMismatch, match=r"features\.sql was changed: it has sha256:\w+, .*manifest\.json says"):
        check_sql(sql, artifact, "demo")
    (artifact / "manifest.json").write_text("{}")
    with pytest.raises(ArtifactMismatch, match=r"manifest\.json: .*sql_sha256"):
        check_sql(sql, artifact, "demo")
    for name in ("manifest.json", "features.sql"):
        (artifact / name).unlink()
        with pytest.raises(ArtifactMismatch, match=rf"{name}: No such file .* `jd-intent-batch export`"):
            check_sql(sql, artifact, "demo")


def test_a_deployment_that_is_not_there_is_named(sql: Path, artifact: Path) -> None:
    with pytest.raises(ConfigError, match=r"deploy\.sql does not deploy 'predict'"):
        check_sql(sql, artifact, "predict")


def test_scorer_and_predict_server_refuse_another_window(stage: Stage, sql: Path) -> None:
    edit(sql / "features.sql", "rows_range between 14d preceding", "rows_range between 13d preceding")
    config = stage.config(store={"sql": str(sql)})
    with pytest.raises(ArtifactMismatch, match="13d preceding"):
        run(config, threading.Event())
    with pytest.raises(ArtifactMismatch, match="13d preceding"):
        server.run(config, Listen("127.0.0.1", 0))
