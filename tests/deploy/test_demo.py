"""`make demo` as a user sees it: the whole job on a small world, its failures, and Ctrl-C."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from fixtures.scorer import wait_until
from places import REPOSITORY


def start(work: Path, *words: str) -> subprocess.Popen[str]:
    argv = [sys.executable, "-m", "deploy.demo", "--work", str(work), *words]
    return subprocess.Popen(
        argv, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def left_behind(work: Path) -> list[str]:
    """Command lines of processes that still work for the demo in `work`."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = file.read_bytes().decode(errors="replace").replace("\0", " ")
        except OSError:  # it ended meanwhile
            continue
        if str(work) in words:
            found.append(words)
    return found


def number(page: str, row: str) -> str:
    match = re.search(rf"^{row} +([\d.,]+)", page, re.MULTILINE)
    assert match is not None, f"no row {row!r} in:\n{page}"
    return match[1].rstrip(",")


def actions_of(page: str) -> int:
    return int(number(page, "scores out").replace(",", ""))


def scores_on(board: str) -> float:
    """How many scores a board has."""
    with urllib.request.urlopen(f"{board}metrics", timeout=30) as answer:
        found = re.search(r"^jd_intent_board_scores (\S+)$", answer.read().decode(), re.MULTILINE)
    assert found is not None
    return float(found[1])


def test_the_whole_job_and_what_keep_leaves_running(tmp_path: Path) -> None:
    """Every action is scored once, poison ends as dead letters, streamed equals offline; then a user's own event."""
    demo = start(tmp_path / "work", "--users", "300", "--keep")
    assert demo.stdout is not None
    page = ""
    try:
        while "as in the tutorial:" not in page:
            line = demo.stdout.readline()
            assert line, page
            page += line
        predict = shlex.split(demo.stdout.readline())
        send = shlex.split(page.splitlines()[-2])
        board = re.search(r"The board: (http://\S+/), open from step 7 on", page.splitlines()[0])
        assert board is not None, page
        with urllib.request.urlopen(f"{board[1]}readyz", timeout=30) as answer:
            assert answer.status == 200
        score = json.loads(subprocess.run(send, check=True, capture_output=True, text=True).stdout)
        told = subprocess.run(predict, check=True, capture_output=True, text=True).stdout
        assert "The shop stays open" in page
        wait_until(lambda: scores_on(board[1]) > actions_of(page) + 5, "the shop to go on")
        demo.send_signal(signal.SIGINT)
        rest, _ = demo.communicate(timeout=60)
    finally:
        demo.kill()
    assert demo.returncode == 0, page + rest
    actions = actions_of(page)
    assert actions == pq.read_metadata(tmp_path / "work" / "dataset" / "test.parquet").num_rows > 500
    assert number(page, "dead letters") == "12"
    assert number(page, "AUC streamed") == number(page, "AUC offline")
    assert f"{actions:,} of {actions:,}" in page
    assert 0 < score["purchase_probability"] < 1
    assert score["model_version"] == "1"
    assert "bo_action_type_multi_top3frequency_42" in told
    assert re.search(r"purchase probability +0\.\d+", told)
    assert left_behind(tmp_path) == []


def to_minutes(file: Path) -> None:
    """Cuts the times of a table to whole minutes: the tutorial's clock, which tells seconds, more so."""
    table = pq.read_table(file)
    for name in ("time", "ingestionTime", "eventTime"):
        if name in table.column_names:
            column = table[name].cast(pa.timestamp("us")).cast(pa.int64()) if name != "time" else table[name]
            unit = 60_000 if name == "time" else 60_000_000
            cut = pc.multiply(pc.divide(column, unit), unit).cast(table.schema.field(name).type)
            table = table.set_column(table.column_names.index(name), name, cut)
    pq.write_table(table, file)


@pytest.mark.slow
def test_data_with_a_coarse_clock(tmp_path: Path) -> None:
    """Like the tutorial's: actions of one moment are told apart, and what was streamed is extracted again offline."""
    data = tmp_path / "data"
    made = [sys.executable, "-m", "batch", "generate", "--users", "300", "--out", str(data)]
    subprocess.run(made, cwd=REPOSITORY, check=True, capture_output=True)
    for folder in ("bo_action", "flattenRequest_clean"):
        for file in (data / folder).glob("*.parquet"):
            to_minutes(file)
    demo = start(tmp_path / "work", "--data", str(data))
    page, _ = demo.communicate(timeout=280)
    assert demo.returncode == 0, page
    assert "of a user's same moment are spread" in page
    actions = actions_of(page)
    assert number(page, "AUC streamed") == number(page, "AUC offline")
    assert f"{actions:,} of {actions:,}" in page
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP], ids=["Ctrl-C", "closed terminal"])
def test_ctrl_c_stops_everything(tmp_path: Path, number: signal.Signals) -> None:
    demo = start(tmp_path / "work", "--users", "300")
    try:
        deadline = time.monotonic() + 120
        # Kafka is up and a step of another environment is running: the widest tree of processes before the scorer
        while not (tmp_path / "work" / "dataset" / "dataset.json").exists():
            assert demo.poll() is None, demo.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.1)
        demo.send_signal(number)
        page, _ = demo.communicate(timeout=60)
    finally:
        demo.kill()
    assert demo.returncode == 0, page
    assert "stopped after" in page
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        pytest.param(lambda table: table.drop_columns("pair_id"), "pair_id", id="missing column"),
        pytest.param(
            lambda table: table.set_column(0, "ingestionTime", pa.array(["today"])), "ingestionTime", id="wrong type"
        ),
    ],
)
def test_a_step_that_fails_fails_the_demo(tmp_path: Path, damage: object, told: str) -> None:
    assert callable(damage)
    data = tmp_path / "data"
    made = [sys.executable, "-m", "batch", "generate", "--users", "20", "--out", str(data)]
    subprocess.run(made, cwd=REPOSITORY, check=True, capture_output=True)
    file = next((data / "bo_action").glob("*.parquet"))
    pq.write_table(damage(pq.read_table(file).slice(0, 1)), file)
    demo = start(tmp_path / "work", "--data", str(data))
    page, _ = demo.communicate(timeout=120)
    assert demo.returncode == 1, page
    assert told in page
    assert file.name in page
    assert "demo failed" in page
    assert left_behind(tmp_path) == []


def test_a_folder_without_data_is_told_what_it_lacks(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    demo = start(tmp_path / "work", "--data", str(tmp_path / "data"))
    page, _ = demo.communicate(timeout=120)
    assert demo.returncode == 1, page
    assert "flattenRequest_clean" in page
    assert "events/user-actions.jsonl" in page
    assert "Usage" not in page
    assert left_behind(tmp_path) == []


def test_a_second_demo_leaves_the_folder_of_the_first_alone(tmp_path: Path) -> None:
    first = start(tmp_path / "work", "--users", "20")
    log = tmp_path / "work" / "kafka" / "kafka.log"
    try:
        deadline = time.monotonic() + 60
        while not log.exists():
            assert first.poll() is None, first.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.05)
        second = start(tmp_path / "work", "--users", "20")
        page, _ = second.communicate(timeout=60)
        assert second.returncode == 2, page
        assert "another `make demo` runs in" in page
        assert len(page.splitlines()) == 1
        assert log.exists()
        first.send_signal(signal.SIGINT)
        page, _ = first.communicate(timeout=60)
    finally:
        first.kill()
    assert first.returncode == 0, page
    assert left_behind(tmp_path) == []
