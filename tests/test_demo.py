"""`make demo` as a user sees it: the whole job on a small world, its failures, and Ctrl-C."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


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
    match = re.search(rf"{row}\s*│\s*([\d.,]+)", page)
    assert match is not None, f"no row {row!r} in:\n{page}"
    return match[1].rstrip(",")


def test_the_whole_job(tmp_path: Path) -> None:
    """Every action is scored once, poison ends as dead letters, and streamed equals offline."""
    demo = start(tmp_path / "work", "--users", "300")
    page, _ = demo.communicate(timeout=280)
    assert demo.returncode == 0, page
    actions = int(number(page, "scores out").replace(",", ""))
    assert actions == pq.read_metadata(tmp_path / "work" / "dataset" / "test.parquet").num_rows > 500
    assert number(page, "dead letters") == "12"
    assert number(page, "AUC streamed") == number(page, "AUC offline")
    assert f"{actions:,} of {actions:,}" in page
    assert left_behind(tmp_path) == []


def test_ctrl_c_stops_everything(tmp_path: Path) -> None:
    demo = start(tmp_path / "work", "--users", "300")
    try:
        deadline = time.monotonic() + 120
        # Kafka is up and a step of another environment is running: the widest tree of processes before the scorer
        while not (tmp_path / "work" / "dataset" / "dataset.json").exists():
            assert demo.poll() is None, demo.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.1)
        demo.send_signal(signal.SIGINT)
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
