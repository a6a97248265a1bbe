"""The page "Bring your own data", followed to the letter: its script, its commands, its SQL."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from places import REPOSITORY
from typer.testing import CliRunner, Result

import batch.cli.commands
import streaming.cli.commands
from streaming.app.folder import App, load_app
from streaming.app.topics import TopicNames
from streaming.app.wrong import WrongApp
from streaming.config import load
from streaming.engine import Engine

PAGE = (REPOSITORY / "docs" / "tutorial" / "bring-your-own-data.md").read_text(encoding="utf-8")
PROGRAMS = {"jd-intent-score": streaming.cli.commands.app, "jd-intent-batch": batch.cli.commands.app}


def blocks(language: str = "") -> list[str]:
    found = re.findall(r"^```([a-z]*)\n(.*?)^```\n", PAGE, re.MULTILINE | re.DOTALL)
    return [text for of, text in found if of == language]


def shown(start: str) -> str:
    """The page's only command that begins so."""
    (line,) = {line for block in blocks() for line in block.splitlines() if line.startswith(start)}
    return line


def run(line: str) -> Result:
    program, *words = shlex.split(line)
    return CliRunner().invoke(PROGRAMS[program], words)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    (folder / "make_events.py").write_text(blocks("python")[0], encoding="utf-8")
    subprocess.run([sys.executable, "make_events.py"], cwd=folder, check=True)
    return folder


def test_the_page_s_steps_work_up_to_the_dataset(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    done = run(shown("jd-intent-score init"))
    assert done.exit_code == 0, done.output
    assert done.output in blocks()
    check = shown("jd-intent-score check")
    (place,) = re.findall(r"ends with `(paper/app\.toml:\d+:\d+: no label): …`", PAGE)
    done = run(check)
    assert isinstance(done.exception, WrongApp)
    assert str(done.exception).startswith(place)

    toml = folder / "paper" / "app.toml"
    toml.write_text(toml.read_text().replace("\n[label]\n", f"\n[label]\n{blocks('toml')[0]}"))
    assert run(check).exit_code == 0  # with the draft's own query
    (folder / "paper" / "features.sql").write_text(blocks("sql")[0])
    assert len(blocks("sql")[0].splitlines()) <= 24
    done = run(check)
    assert done.exit_code == 0, done.exception
    assert "warning" not in done.output

    done = run(shown("jd-intent-batch backfill"))
    assert done.exit_code == 0, done.output
    assert (folder / "data" / "refused.jsonl").read_text() == ""
    check_features(load_app(folder / "paper"), folder / "data")
    for step in ("extract", "prepare"):
        done = run(shown(f"jd-intent-batch {step}"))
        assert done.exit_code == 0, done.output
    dataset = json.loads((folder / "dataset" / "dataset.json").read_bytes())
    assert dataset["label_source"] == "subscriptions_rows"
    trained = pq.read_table(folder / "dataset" / "train.parquet")
    assert 0.05 < np.mean(trained["label"].to_numpy()) < 0.4


def test_the_page_s_configuration_and_topics_are_the_application_s(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    samples = [str(folder / f"{name}.jsonl") for name in ("views", "subscriptions", "readers")]
    done = run(shlex.join(["jd-intent-score", "init", "paper", *(word for at in samples for word in ("--from", at))]))
    assert done.exit_code == 0, done.output
    toml = tmp_path / "paper" / "app.toml"
    toml.write_text(toml.read_text().replace("\n[label]\n", f"\n[label]\n{blocks('toml')[0]}"))
    file = tmp_path / "scorer.toml"
    file.write_text(blocks("toml")[1])
    config = load(file)
    assert (config.store.history, config.model.artifact) == ("data", "artifact")
    topics = TopicNames.of(load_app(tmp_path / config.app), config.kafka.topics)
    assert f"topics: {', '.join([*topics.inputs, topics.scores, topics.dead_letters])}\n" in blocks()
    score = json.loads(blocks("json")[0])
    assert list(score) == list(load_app(tmp_path / config.app).settings.scores.fields)
    for line in (line for block in blocks() for line in block.splitlines() if " send " in line):
        sent = json.loads(shlex.split(line)[-1])
        assert {*sent, "seen_at"} == {column.name for column in topics.streams["views"].columns}


def check_features(app: App, data: Path) -> None:
    """The query answers the tables, and its features tell who subscribes."""
    engine = Engine()
    engine.execute(app.sources["tables.sql"])
    engine.execute(f"DEPLOY d {app.sources['features.sql']}")
    tables = {table: pq.read_table(data / table) for table in app.tables.columns}
    for table, rows in tables.items():
        engine.insert(table, rows)
    views = tables["views_rows"]
    late = views.slice(views.num_rows - 5_000, 2_000)
    answers = engine.request("d", late)
    assert answers["country"].null_count == 0
    paid: dict[str, list[float]] = {}
    for row in tables["subscriptions_rows"].to_pylist():
        paid.setdefault(row["reader_id"], []).append(row["paid_at"].timestamp())
    label = np.array(
        [
            any(0 < at - row["seen_at"].timestamp() <= 3 * 86_400 for at in paid.get(row["reader_id"], ()))
            for row in late.to_pylist()
        ]
    )
    walls = answers["walls_7d"].to_numpy()
    assert 0.02 < label.mean() < 0.3
    assert walls[label].mean() > 1.2 * walls[~label].mean()
