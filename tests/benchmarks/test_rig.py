"""The configuration of the scorers that benchmarks start is one that a scorer takes."""

from __future__ import annotations

from pathlib import Path

from benchmarks.rig import scorer_config
from streaming.config import load


def test_what_benchmarks_write_is_a_configuration(tmp_path: Path) -> None:
    more = 'static_membership = true\ninstance_id = "one"\n[snapshots]\nfolder = "state"\nevery_s = 1.0'
    file = scorer_config(tmp_path / "x.toml", "broker:9092", "triton:8001", tmp_path, "events", "scores", 1234, more)
    config = load(file)
    assert config.kafka.bootstrap_servers == "broker:9092"
    assert config.kafka.group_id == config.kafka.topics["scores"] == "scores"
    assert config.snapshots.every_s == 1.0
