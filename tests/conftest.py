"""Session fixtures: real servers on free ports with their own folders, stopped by their own pid."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import HealthCheck, settings
from places import SHARED

from deploy.kafka.broker import Broker

# Nothing here is decided by how long it takes: these machines are shared.
settings.register_profile("shared machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared machine")

pytest_plugins = ["fixtures.apiserver", "fixtures.browser", "fixtures.model", "fixtures.scorer", "fixtures.secured"]


@pytest.fixture(autouse=True)
def log_as_it_was() -> Iterator[None]:
    """What a command under test makes of the log ends with the test: its streams are closed then."""
    before, configured = structlog.get_config(), structlog.is_configured()
    yield
    if configured:
        structlog.configure(**before)
    else:
        structlog.reset_defaults()


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
