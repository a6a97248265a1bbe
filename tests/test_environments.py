"""What a newcomer reads when the machine lacks something."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy import environments


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine with nothing on it: no PATH, no pyenv, no environments yet."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    monkeypatch.setenv("JD_ENVS", str(tmp_path / "envs"))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    (tmp_path / "bin").mkdir()
    return tmp_path


def program(folder: Path, name: str, script: str) -> None:
    file = folder / "bin" / name
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)


JAVA_17 = "echo 'openjdk version \"17-ea\" 2021-09-14' >&2"


def test_missing_python_is_named_with_its_command(bare: Path) -> None:
    program(bare, "java", JAVA_17)
    program(bare, "mvn", "exit 0")
    with pytest.raises(environments.Missing, match=r"Python 3\.10 .*pyenv install 3\.10"):
        environments.make()


def test_a_shim_that_refuses_to_run_is_no_python(bare: Path) -> None:
    program(bare, "java", JAVA_17)
    program(bare, "mvn", "exit 0")
    program(bare, "python3.10", "echo 'command not found' >&2; exit 127")
    with pytest.raises(environments.Missing, match=r"Python 3\.10"):
        environments.make()


def test_missing_java_is_named_with_its_command(bare: Path) -> None:
    with pytest.raises(environments.Missing, match=r"Java 17 .*apt-get install openjdk-17"):
        environments.make()


def test_an_old_java_is_named(bare: Path) -> None:
    program(bare, "java", "echo 'openjdk version \"11.0.2\" 2019-01-15' >&2")
    with pytest.raises(environments.Missing, match=r"is Java 11, Kafka 4 needs 17"):
        environments.java()


def test_missing_maven_is_named_with_its_command(bare: Path) -> None:
    program(bare, "java", JAVA_17)
    with pytest.raises(environments.Missing, match=r"Maven .*apt-get install maven"):
        environments.make()


def test_an_environment_that_was_not_made_is_named(bare: Path) -> None:
    with pytest.raises(environments.Missing, match="make environments"):
        environments.interpreter("model")
