"""The wheel: installed somewhere else, its commands work in any folder, without the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from places import REPOSITORY, SQL

Run = Callable[..., str]
BUILT_FROM = ("setup.cfg", "pyproject.toml", "README.md", "LICENSE", "streaming", "batch", "deploy", "sql")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, because building leaves folders beside setup.cfg. Without an index."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in BUILT_FROM:
        if (REPOSITORY / name).is_dir():
            leave = shutil.ignore_patterns("__pycache__", "*.egg-info")
            shutil.copytree(REPOSITORY / name, source / name, symlinks=True, ignore=leave)
        else:
            shutil.copy(REPOSITORY / name, source)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet", "--no-index"]
    subprocess.run([*pip, "--no-deps", "--no-build-isolation", "--wheel-dir", out, source], check=True)
    (made,) = out.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel; what it depends on comes from this interpreter's environment."""
    home = tmp_path_factory.mktemp("installed")
    venv.create(home, with_pip=False)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(home), "install", "--quiet"]
    subprocess.run([*pip, "--no-index", "--no-deps", wheel], check=True)
    (packages,) = home.glob("lib/python*/site-packages")
    # Behind the wheel's own; what a .pth file names is only a place to look in: the checkout's link is not followed.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return home


@pytest.fixture
def run(environment: Path, tmp_path: Path) -> Run:
    """Runs a program of the environment in an empty folder; its output."""

    def run(program: str, *words: object, **variables: str) -> str:
        told = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "JD_"))}
        argv = [str(environment / "bin" / program), *map(str, words)]
        done = subprocess.run(
            argv, cwd=tmp_path, env=told | variables, capture_output=True, text=True, check=False, timeout=120
        )
        assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
        return done.stdout

    return run


def test_the_wheel_holds_both_packages_and_what_is_shipped_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        for name in ("sql/jd/features.sql", "triton/config.pbtxt", "triton/config.oneflow.pbtxt", "triton/model.py"):
            source = REPOSITORY / (name if name.startswith("sql/") else f"deploy/{name}")
            assert archive.read(f"streaming/shipped/{name}") == source.read_bytes()
        assert archive.read("streaming/shipped/scorer.toml") == (REPOSITORY / "deploy" / "scorer.toml").read_bytes()
    modules = {
        str(file.relative_to(REPOSITORY))
        for package in ("streaming", "batch")
        for file in (REPOSITORY / package).rglob("*.py")
    }
    shipped = {name for name in names if name.startswith("streaming/shipped/")}
    pages = {f"streaming/board/pages/{file.name}" for file in (REPOSITORY / "streaming" / "board" / "pages").iterdir()}
    assert names - shipped == modules | pages | {"streaming/py.typed", "batch/py.typed"}
    scripts = {f"streaming/shipped/sql/{file.relative_to(SQL)}" for file in SQL.rglob("*") if file.is_file()}
    assert {name for name in shipped if "/sql/" in name} == scripts
    assert len(shipped) == len(scripts) + 4


def test_nothing_of_the_checkout_is_imported(run: Run, environment: Path) -> None:
    script = (
        "import importlib.util, batch.cli, streaming.cli.commands, streaming.loop.run, streaming.shipped_files as s\n"
        "print(batch.__file__, streaming.__file__, s.SQL_FOLDER, s.TRITON_FOLDER)\n"
        "print(importlib.util.find_spec('deploy'))"
    )
    *paths, deploy = run("python", "-c", script).split()
    assert all(Path(path).is_relative_to(environment) for path in paths)
    assert deploy == "None"


def test_the_scorer_s_commands_work(run: Run, environment: Path, tmp_path: Path) -> None:
    assert "explain" in run("jd-intent-score", "--help")
    (shipped,) = environment.glob("lib/python*/site-packages/streaming/shipped")
    assert "flattenRequest" in run("jd-intent-score", "explain", shipped / "sql" / "jd" / "features.sql")
    tables = run("jd-intent-score", "sql", shipped / "sql" / "jd" / "tables.sql", "-e", "show tables")
    assert "bo_action" in tables
    assert run("jd-intent-score", "check", "sql/talkingdata").startswith("application talkingdata ")
    script = (
        "import sys, pathlib, streaming.config as c, streaming.shipped_files as s\n"
        "print(s.app_folder(c.load(pathlib.Path(sys.argv[1])).app))"
    )
    assert run("python", "-c", script, shipped / "scorer.toml").strip() == str(shipped / "sql" / "jd")
    (tmp_path / "sql" / "jd").mkdir(parents=True)
    assert run("python", "-c", script, shipped / "scorer.toml").strip() == "sql/jd", "the working folder's goes first"


def test_the_batch_commands_work(run: Run, environment: Path, tmp_path: Path) -> None:
    run("jd-intent-batch", "generate", "--out", "data", "--users", 80, "--seed", 5)
    run("jd-intent-batch", "extract", "--data", "data", "--out", "features")
    told = run("jd-intent-batch", "prepare", "--features", "features", "--data", "data", "--out", "dataset")
    assert "table size array:" in told
    assert (tmp_path / "dataset" / "dataset.json").is_file()


def test_export_finds_the_code_that_triton_runs(run: Run, environment: Path) -> None:
    script = "import batch.train.export as e; print(*e.CODE)"
    code = [Path(path) for path in run("python", "-c", script).split()]
    assert all(path.is_relative_to(environment) for path in code)
    wanted = ("deploy/triton/model.py", "batch/train/deepfm.py", "batch/train/vocabulary.py")
    assert [path.read_bytes() for path in code] == [(REPOSITORY / name).read_bytes() for name in wanted]


@pytest.mark.parametrize("told", [True, False])
def test_training_goes_on_in_the_environment_of_the_model(
    run: Run, environment: Path, tmp_path: Path, told: bool
) -> None:
    """The one that JD_ENVS names, or the one that lies beside."""
    envs = tmp_path / "envs" if told else environment.parent
    programs = envs / "model" / "bin"
    programs.mkdir(parents=True)
    for name in ("python", "jd-intent-batch"):
        (programs / name).write_text('#!/bin/sh\necho "in the model environment: $@"\n')
        (programs / name).chmod(0o755)
    try:
        words = ("train", "--dataset", "dataset", "--out", "new")
        out = run("jd-intent-batch", *words, **({"JD_ENVS": str(envs)} if told else {}))
    finally:
        shutil.rmtree(envs / "model")
    assert out == f"in the model environment: {' '.join(words)}\n"
