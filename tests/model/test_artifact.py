"""The deployed query must be the artifact's: what differs is named by file and line."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest
from fixtures.artifact import save_sql
from fixtures.scorer import Stage
from places import SQL

from streaming.app.folder import load_app
from streaming.errors import ArtifactMismatch
from streaming.loop.run import run
from streaming.model.artifact import check_sql
from streaming.predict import server
from streaming.web.listen import Listen


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of sql/jd."""
    return Path(shutil.copytree(SQL / "jd", tmp_path / "jd"))


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


def test_the_shipped_pair_belongs_together(folder: Path, artifact: Path) -> None:
    check_sql(load_app(folder), artifact)


def test_comments_white_space_and_options_are_no_difference(folder: Path, artifact: Path) -> None:
    edit(folder / "features.sql", "select\n", "select -- all of them;\n\n  /* here; */ ")
    edit(folder / "app.toml", 'RANGE_BIAS = "inf"', "RANGE_BIAS = 1000")
    check_sql(load_app(folder), artifact)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("rows_range between 14d preceding", "rows_range between 13d preceding"),
        ("MAXSIZE 200", "MAXSIZE 20"),
        ("'' as `has_bad_comment`", "' ' as `has_bad_comment`"),
        ("on out0.reqId_1 = out3.reqId_17", "on out0.reqId_1 = out3.reqId_17 and true"),
    ],
)
def test_another_query_is_refused_by_file_and_line(folder: Path, artifact: Path, old: str, new: str) -> None:
    edit(folder / "features.sql", old, new)
    with pytest.raises(ArtifactMismatch) as caught:
        check_sql(load_app(folder), artifact)
    _, deployed, trained = str(caught.value).split("\n")
    file = folder / "features.sql"
    assert deployed.startswith(f"  {file}")
    assert trained.startswith(f"  {artifact / 'features.sql'}")
    lines = (folder / "features.sql").read_text(encoding="utf-8").split("\n")
    number = int(deployed.removeprefix(f"  {file}:").split(":")[0])
    assert deployed.endswith(lines[number - 1].strip())
    assert new in lines[number - 1]


def test_a_query_that_ends_before_the_artifact_s_is_refused(folder: Path, artifact: Path) -> None:
    file = folder / "features.sql"
    shorter = file.read_text(encoding="utf-8").rpartition("\nlast join\n")[0]
    file.write_text(f"{shorter};\n", encoding="utf-8")
    # what the last join answered is no longer there to be encoded
    fields = ["flattenRequest_pair_id_original_24", "flattenRequest_sku_id_original_25", "reqId_1"]
    toml = (folder / "app.toml").read_text(encoding="utf-8")
    head, _, rest = toml.partition("[encoder]")
    tail = rest[rest.index("[history") :]
    (folder / "app.toml").write_text(f"{head}[encoder]\nleave_out = {fields}\n\n{tail}", encoding="utf-8")
    with pytest.raises(ArtifactMismatch) as caught:
        check_sql(load_app(folder), artifact)
    _, deployed, trained = str(caught.value).split("\n")
    assert deployed == f"  {file}: the query ends"
    assert trained.startswith(f"  {artifact / 'features.sql'}:")


def test_a_changed_or_incomplete_artifact_is_refused(folder: Path, artifact: Path) -> None:
    edit(artifact / "features.sql", "14d", "13d")
    with pytest.raises(ArtifactMismatch, match=r"features\.sql was changed: it has sha256:\w+, .*manifest\.json says"):
        check_sql(load_app(folder), artifact)
    (artifact / "manifest.json").write_text("{}")
    with pytest.raises(ArtifactMismatch, match=r"manifest\.json: .*sql_sha256"):
        check_sql(load_app(folder), artifact)
    for name in ("manifest.json", "features.sql"):
        (artifact / name).unlink()
        with pytest.raises(ArtifactMismatch, match=rf"{name}: No such file .* `jd-intent-batch export`"):
            check_sql(load_app(folder), artifact)


def test_scorer_and_predict_server_refuse_another_window(stage: Stage, folder: Path) -> None:
    edit(folder / "features.sql", "rows_range between 14d preceding", "rows_range between 13d preceding")
    config = stage.config(folder)
    with pytest.raises(ArtifactMismatch, match="13d preceding"):
        run(config, threading.Event())
    with pytest.raises(ArtifactMismatch, match="13d preceding"):
        server.run(config, Listen("127.0.0.1", 0))
