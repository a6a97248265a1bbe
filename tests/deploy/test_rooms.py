"""The rooms: imports go downward and in no circle (setup.cfg has the contracts); each room says what it may import."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest
from places import REPOSITORY

PACKAGES = ("streaming", "batch")
ROOMS = sorted(
    str(file.parent.relative_to(REPOSITORY))
    for package in PACKAGES
    for file in (REPOSITORY / package).rglob("__init__.py")
)


def test_imports_go_downward_and_in_no_circle() -> None:
    command = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    words = ["--config", "setup.cfg", "--no-cache"]
    done = subprocess.run(
        [sys.executable, "-c", command, *words], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


@pytest.mark.parametrize("room", ROOMS)
def test_each_room_says_who_may_import_it_and_what_it_may_import(room: str) -> None:
    promise = ast.get_docstring(ast.parse((REPOSITORY / room / "__init__.py").read_text(encoding="utf-8"))) or ""
    promise = " ".join(promise.split())
    assert "May be imported by: " in promise
    assert "May import: " in promise


@pytest.mark.parametrize("package", PACKAGES)
def test_every_folder_with_modules_is_a_room(package: str) -> None:
    """A folder without `__init__.py` would be in no wheel and in no contract."""
    folders = {str(file.parent.relative_to(REPOSITORY)) for file in (REPOSITORY / package).rglob("*.py")}
    assert folders <= set(ROOMS)
