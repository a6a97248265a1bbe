"""How commands end: one table of statuses, the right environment by itself, help that eats no word."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import typer.main
from confluent_kafka import KafkaError, KafkaException
from places import REPOSITORY

import batch.cli.commands
import streaming.cli.commands
from batch.dataset.read import DatasetError
from deploy.environments import interpreter
from streaming import errors
from streaming.engine import BadRow, UnsupportedSQL
from streaming.files.tables import BadFile
from streaming.ops import exits
from streaming.ops.exits import BATCH, SCORE, exit_status


def told(error: str, cause: BaseException | None = None) -> errors.ScorerError:
    raised = errors.ScorerError(error)
    raised.__cause__ = cause
    return raised


STATUSES: list[tuple[int, BaseException]] = [
    (1, ValueError("of nobody's")),
    (1, RecursionError()),
    (2, errors.ConfigError("x")),
    (2, errors.BadInput("x")),
    (2, errors.BadEvent("decode", "x")),
    (2, errors.LoginRefused("x")),
    (2, errors.OutputRefused("x")),
    (2, errors.NoSpace("x")),
    (2, BadFile("x")),
    (2, DatasetError("x")),
    (2, UnsupportedSQL("x")),
    (2, BadRow("x")),
    (2, FileNotFoundError(2, "No such file", "f")),
    (2, told("plain")),
    (3, errors.ArtifactMismatch("x")),
    (4, errors.BrokerUnavailable("x")),
    (4, errors.ModelUnavailable("x")),
    (4, errors.StoreUnavailable("x")),
    (4, ConnectionRefusedError(111, "refused")),
    (5, errors.TransactionFatal("x")),
    (5, errors.Aborted("x")),
    (5, errors.LogNotWhole("x")),
    (5, errors.OffsetOutOfRange("x")),
    (5, errors.NotAllowed("x")),
    (5, errors.FolderTaken("x")),
    (5, errors.BadSnapshot("damaged", "x")),
    (5, KafkaException(KafkaError(KafkaError._AUTHENTICATION))),
    (5, told("following failed", KafkaException(KafkaError(KafkaError._FATAL)))),
    (4, told("following failed", errors.BrokerUnavailable("x"))),
    (3, errors.WorkerFailed("x", 3)),
]


@pytest.mark.parametrize(("status", "error"), STATUSES, ids=lambda x: type(x).__name__)
def test_one_status_for_each_failure(status: int, error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_status(error) == status
    if status == 1:
        with pytest.raises(type(error)):
            exits.ended(SCORE, error)
    else:
        assert exits.ended(SCORE, error) == status
        line = capsys.readouterr().err
        assert line.startswith(f"{SCORE}: ")
        assert type(error).__name__ not in line


def test_every_error_of_the_scorer_has_a_status() -> None:
    kinds = [kind for name in errors.__all__ if isinstance(kind := getattr(errors, name), type)]
    shown = {type(error) for _, error in STATUSES}
    # Stopped and Rebalanced are caught in the loop; Unavailable is the root of three that are shown
    assert set(kinds) - shown <= {errors.Stopped, errors.Rebalanced, errors.Unavailable}


def test_the_documented_table_is_the_program_s() -> None:
    page = (REPOSITORY / "docs" / "reference" / "exit-statuses.md").read_text()
    assert re.findall(r"^\| (\d) \|", page, re.MULTILINE) == ["0", "1", "2", "3", "4", "5"]


# -- the right environment -----------------------------------------------------------------------------------------


def command(environment: str, *words: object, **variables: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY), **variables}
    argv = [str(interpreter(environment)), "-m", *map(str, words)]
    return subprocess.run(argv, env=env, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize("environment", ["scorer", "model"])
def test_commands_run_whichever_environment_they_are_given_in(environment: str, tmp_path: Path) -> None:
    given: dict[str, list[tuple[object, ...]]] = {
        "scorer": [("batch", "train", "--dataset", tmp_path / "no dataset", "--out", tmp_path / "new")],
        "model": [
            ("batch", "extract", "--data", tmp_path / "no data", "--out", tmp_path / "new"),
            ("streaming", "explain", tmp_path / "no script"),
        ],
    }
    for words in given[environment]:
        done = command(environment, *words)
        assert done.returncode == 2, done.stderr
        assert re.search(r"^jd-intent-(batch|score): .*no (dataset|data|script)", done.stderr, re.MULTILINE)
        assert "Traceback" not in done.stderr
        version = command(environment, words[0], "--version")
        assert re.fullmatch(r"jd-intent-scorer [\d.]+\n", version.stdout)


def test_a_missing_environment_is_named(tmp_path: Path) -> None:
    done = command("model", "streaming", "run", JD_ENVS=str(tmp_path))
    assert done.returncode == 2
    assert "`jd-intent-score run` runs in the scorer environment" in done.stderr
    assert f"there is none at {tmp_path / 'scorer'}: `make environments` makes it" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_environment_that_lacks_something_itself_is_named(tmp_path: Path) -> None:
    """It must not be asked for ever: the process that went on says what is missing there."""
    (tmp_path / "model" / "bin").mkdir(parents=True)
    python = tmp_path / "model" / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec {interpreter("scorer")} "$@"\n')
    python.chmod(0o755)
    done = command("scorer", "batch", "train", "--dataset", tmp_path, "--out", tmp_path / "new", JD_ENVS=str(tmp_path))
    assert done.returncode == 2, done.stderr
    assert "needs oneflow, which the model environment at" in done.stderr


def test_a_command_goes_on_once_and_what_it_starts_is_not_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the scorer's to the model's, which lacks what the scorer's has: they would ask each other for ever."""
    monkeypatch.setenv("JD_INTENT_ENVIRONMENT", "model")
    monkeypatch.setattr(os, "execv", lambda *_: pytest.fail("it goes on again"))
    monkeypatch.setattr(sys, "argv", ["jd-intent-batch", "train"])
    monkeypatch.setattr(sys, "prefix", "/envs/model")
    app = typer.Typer()

    @app.command()
    def train(words: list[str]) -> None:
        assert "JD_INTENT_ENVIRONMENT" not in os.environ
        raise ModuleNotFoundError(name="numpy.linalg")

    with pytest.raises(SystemExit, match="2"):
        exits.main("jd-intent-batch", "batch", app)
    told = capsys.readouterr().err
    assert "`jd-intent-batch train` needs numpy, which the model environment at /envs/model lacks" in told


def test_signals_and_the_process_stay_the_same_when_a_command_goes_on_elsewhere(tmp_path: Path) -> None:
    """The process that was started is the one that is stopped: no child between them could swallow the signal."""
    (tmp_path / "scorer" / "bin").mkdir(parents=True)
    python = tmp_path / "scorer" / "bin" / "python"
    python.write_text('#!/bin/sh\necho "$$ $*"\nexec sleep 60\n')
    python.chmod(0o755)
    argv = [str(interpreter("model")), "-m", "streaming", "run", "--config", "a file.toml"]
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY), "JD_ENVS": str(tmp_path)}
    with subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == f"{child.pid} -m streaming run --config a file.toml\n"
        child.send_signal(signal.SIGTERM)
        assert child.wait(30) == -signal.SIGTERM


def test_ctrl_c_is_no_defect(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    app = typer.Typer(pretty_exceptions_enable=False)

    @app.command()
    def wait() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys, "argv", [SCORE])
    with pytest.raises(SystemExit) as ended:
        exits.main(SCORE, "streaming", app)
    assert ended.value.code == 130
    assert "Traceback" not in capsys.readouterr().err


# -- help ----------------------------------------------------------------------------------------------------------


def helps(command: Any, context: Any) -> Iterator[tuple[str, Any, str]]:
    """Every command with the text of its help."""
    yield context.command_path, command, command.get_help(context)
    for name, inner in getattr(command, "commands", {}).items():
        yield from helps(inner, type(context)(inner, parent=context, info_name=name, terminal_width=100))


def words(text: str) -> list[str]:
    return re.sub(r"-\s*\n\s*", "-", text).split()


@pytest.mark.parametrize("program", [SCORE, BATCH])
def test_help_shows_every_word_that_was_written(program: str) -> None:
    app = streaming.cli.commands.app if program == SCORE else batch.cli.commands.app
    root = typer.main.get_command(app)
    seen = 0
    for path, command, text in helps(root, root.make_context(program, ["--help"], resilient_parsing=True)):
        shown = set(words(text))
        written = [command.help or "", *(getattr(option, "help", None) or "" for option in command.params)]
        missing = [word for part in written for word in words(part) if word not in shown]
        assert not missing, f"{path}: {missing}\n{text}"
        seen += 1
    assert seen > 8
    assert program == BATCH or "[store]" in typer.main.get_command(app).commands["deploy"].help  # type: ignore[attr-defined]
