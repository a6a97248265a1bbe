"""Session fixtures: real servers on free ports with their own folders, stopped by their own pid."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.kafka.broker import Broker

pytest_plugins = ["fixtures_model", "fixtures_scorer"]

SHARED = Path(__file__).resolve().parent.parent.parent / "shared"


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A real Kafka. Tests make topics of their own names on it, so that they do not see each other's records."""
    with Broker(tmp_path_factory.mktemp("kafka")) as kafka:
        yield kafka


@pytest.fixture(scope="session")
def jd() -> Path:
    """The tutorial's public data, which lies outside the repository."""
    folder = SHARED / "jd"
    if not folder.is_dir():
        pytest.skip(f"the tutorial's data is not at {folder}")
    return folder


@pytest.fixture(scope="session")
def golden() -> Path:
    """Answers of OpenMLDB's own engines, which lie outside the repository."""
    folder = SHARED / "golden"
    if not folder.is_dir():
        pytest.skip(f"the recorded answers are not at {folder}")
    return folder
