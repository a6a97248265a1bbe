"""`jd-intent-batch`: what the commands print, and that what a user can mend ends in one line and status 2."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from places import REPOSITORY

COMMANDS = ("generate", "extract", "prepare", "encode", "train", "evaluate", "export", "parity")


def batch(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "batch", *map(str, words)], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world's data, features and dataset, each made by its command; their output beside them."""
    work = tmp_path_factory.mktemp("commands")
    steps = {
        "generate": ("--users", 60, "--seed", 2, "--out", work / "data"),
        "extract": ("--data", work / "data", "--out", work / "features"),
        "prepare": ("--features", work / "features", "--data", work / "data", "--out", work / "dataset"),
    }
    for name, words in steps.items():
        done = batch(name, *words)
        assert done.returncode == 0, done.stdout + done.stderr
        (work / f"{name}.txt").write_text(done.stdout)
    return work


def test_help_names_every_command() -> None:
    done = batch("--help")
    assert done.returncode == 0
    assert all(re.search(rf"\b{name}\b", done.stdout) for name in COMMANDS)


def test_generate_reports_the_worlds_ceiling(work: Path) -> None:
    text = (work / "generate.txt").read_text()
    assert re.search(r"60 users, [\d,]+ products, [\d,]+ actions, [\d,]+ requests", text)
    assert re.search(r"AUC of the true probabilities: 0\.[5-9]\d+", text)


def test_extract_and_prepare_print_as_the_tutorial_does(work: Path) -> None:
    requests = pq.read_table(work / "data" / "flattenRequest_clean").num_rows
    assert f"{requests:,} requests x 42 columns" in (work / "extract.txt").read_text()
    text = (work / "prepare.txt").read_text()
    counts = [int(n) for n in re.findall(r"^(?:train|val|test) samples = (\d+)$", text, re.MULTILINE)]
    assert len(counts) == 3
    assert sum(counts) == requests
    assert re.search(r"^positives = train \d+ \(", text, re.MULTILINE)
    sizes = re.search(r"^table size array:\n([\d,]+)$", text, re.MULTILINE)
    assert sizes is not None
    assert len(sizes[1].split(",")) == 41


def test_encode_repeats_the_test_part(work: Path) -> None:
    dataset = work / "dataset"
    since = int(pq.read_table(dataset / "test.parquet")["time"].cast(pa.int64())[0].as_py())
    done = batch(
        "encode",
        "--features",
        work / "features",
        "--data",
        work / "data",
        "--out",
        work / "later",
        "--encoder",
        dataset / "encoder",
        "--since",
        since,
    )
    assert done.returncode == 0, done.stdout
    assert pq.read_table(work / "later" / "test.parquet").equals(pq.read_table(dataset / "test.parquet"))


def test_parity_answers_with_its_status(work: Path, tmp_path: Path) -> None:
    words = ("--offline", work / "features", "--encoder", work / "dataset" / "encoder")
    same = batch("parity", "--served", work / "features", *words)
    assert (same.returncode, "no difference" in same.stdout) == (0, True)
    table = pq.read_table(work / "features")
    name = "flattenRequest_pair_id_window_count_35"
    wrong = pa.array([value + 1 for value in table[name].to_pylist()], pa.int64())
    pq.write_table(table.set_column(table.schema.get_field_index(name), name, wrong), tmp_path / "served.parquet")
    plot = tmp_path / "parity.svg"
    other = batch("parity", "--served", tmp_path / "served.parquet", *words, "--plot", plot)
    assert other.returncode == 1
    assert f">{name}<" in plot.read_text()
    refused = batch("parity", "--served", work / "features", *words, "--plot", tmp_path / "served.parquet")
    assert (refused.returncode, "is no SVG file" in refused.stderr) == (2, True)
    assert f"{name}: {table.num_rows:,} differ" in other.stdout


def test_mistakes_end_in_one_clear_line(work: Path, tmp_path: Path) -> None:
    prepare = ("prepare", "--features", work / "features", "--data", work / "data", "--out", tmp_path / "d")
    for words, message in (
        (("generate", "--users", 0, "--out", tmp_path / "w"), "jd-intent-batch: --users must be at least 1, not 0"),
        (("extract", "--data", tmp_path / "no", "--out", tmp_path / "f"), "no: there is no such folder"),
        ((*prepare, "--val-fraction", 2), "jd-intent-batch: --val-fraction must be between 0 and 1, not 2.0"),
        (("parity", "--served", tmp_path / "no.parquet", "--offline", tmp_path / "no.parquet"), "not readable"),
    ):
        done = batch(*words)
        assert done.returncode == 2, words
        assert message in done.stderr
        assert "Traceback" not in done.stdout + done.stderr
    done = batch(*prepare, "--embargo", "5 weeks")
    assert done.returncode == 2
    assert "--embargo" in done.stderr
