"""`python -m deploy.kafka.broker` and `deploy.triton.server` given wrong paths and taken ports; `make help`."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from places import REPOSITORY


def run(*words: object) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", *map(str, words)]
    return subprocess.run(argv, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=120)


def test_wrong_paths_and_ports_end_in_one_line(tmp_path: Path) -> None:
    a_file = tmp_path / "a file"
    a_file.touch()
    (tmp_path / "repository" / "embedding").mkdir(parents=True)
    (tmp_path / "repository" / "embedding" / "config.pbtxt").touch()
    broker, triton = "deploy.kafka.broker", "deploy.triton.server"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        there = ("--repository", tmp_path / "repository", "--folder", tmp_path / "t")
        free = ("--grpc-port", port, "--http-port", port, "--metrics-port", port)
        for words, named in (
            ((broker, "--folder", tmp_path / "kafka", "--port", port), f"port {port}"),
            ((broker, "--folder", tmp_path / "kafka", "--port", 99_999), "--port"),
            ((broker, "--folder", tmp_path / "kafka", "--port", "x"), "--port"),
            ((broker, "--folder", a_file, "--port", port), "a file"),
            ((triton, "--repository", tmp_path / "no", "--folder", tmp_path / "t", *free), f"{tmp_path / 'no'}"),
            ((triton, "--repository", a_file, "--folder", tmp_path / "t", *free), "a file"),
            ((triton, *there, *free), f"port {port}"),
            ((triton, *there, "--http-port", 0), "--http-port"),
        ):
            done = run(*words)
            assert done.returncode == 2, (words, done.stderr)
            assert named in done.stderr, words
            assert "Traceback" not in done.stderr, words


def test_make_help_shows_every_variable_that_a_command_reads() -> None:
    done = subprocess.run(
        ["make", "help"], cwd=REPOSITORY, capture_output=True, text=True, check=True, env={"PATH": os.environ["PATH"]}
    )
    shown = dict(re.findall(r"^  ([A-Z_]+)=(\S*)", done.stdout, re.MULTILINE))
    makefile = (REPOSITORY / "Makefile").read_text()
    recipes = "\n".join(line for line in makefile.splitlines() if line.startswith(("\t", "DEMO_STORE", "ENVS")))
    own = {"PYTHON", "PYTHON3", "PYTEST", "TOOL", "ENVS", "DEMO_STORE", "MAKEFILE_LIST", "HOST", "PORT"}
    read = set(re.findall(r"\b[A-Z][A-Z_0-9]+\b", " ".join(re.findall(r"\$\(([^)]*)", recipes)))) - own
    assert read <= set(shown), read - set(shown)
    assert (shown["SEEDS"], shown["ROUNDS"], shown["STORE"], shown["DATA"]) == ("2000", "30", "embedded", "")


@pytest.mark.parametrize("variable", ["SEEDS", "ROUNDS", "INPUTS", "MINUTES", "PER_S"])
def test_defaults_of_make_reach_the_command_without_blanks(variable: str) -> None:
    target = {"SEEDS": "simulate", "ROUNDS": "chaos", "INPUTS": "fuzz"}.get(variable, "soak")
    env = {"PATH": os.environ["PATH"]}
    done = subprocess.run(["make", "-n", target], cwd=REPOSITORY, capture_output=True, text=True, check=True, env=env)
    option = variable.lower().replace("_", "-")
    assert re.search(rf"--{option} \d+( |$)", done.stdout.splitlines()[-1])
