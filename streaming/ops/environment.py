"""Two environments, one command: what this interpreter cannot import, the interpreter of the other one can.

OneFlow and OpenMLDB's SDK cannot share an environment (docs/explanation/two-environments.md). `make environments` puts
`scorer` and `model` beside each other; a command that is given in the wrong one goes on in the right one, in the same
process: its id, its arguments, its standard streams, signals and exit status are those of the command that was given.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn

from streaming.errors import ConfigError

__all__ = ["SWITCHED", "environment_of", "go_on_elsewhere", "interpreter"]

MODEL_PACKAGES = frozenset({"oneflow"})
"""What only the environment of the model has; all else is in the scorer's."""

OURS = frozenset({"streaming", "batch", "deploy"})

SWITCHED = "JD_INTENT_ENVIRONMENT"
"""Set for the process that goes on: it does not go on again."""


def environment_of(package: str) -> str:
    """The environment that has a package: `scorer` or `model`."""
    return "model" if package in MODEL_PACKAGES else "scorer"


def interpreter(name: str) -> Path:
    """Where the Python of an environment is, or would be: below JD_ENVS, beside this environment, in the checkout.

    Args:
        name: `scorer`, `model` or `spark`.
    """
    folders = [Path(sys.prefix).parent]
    checkout = Path(__file__).resolve().parents[2]
    if (checkout / "deploy" / "environments.py").exists():  # an installed wheel has none
        folders.append(checkout / ".envs")
    if os.environ.get("JD_ENVS"):
        folders = [Path(os.environ["JD_ENVS"])]
    places = [folder.absolute() / name / "bin" / "python" for folder in folders]
    return next((place for place in places if place.exists()), places[-1])


def go_on_elsewhere(program: str, module: str, missing: ModuleNotFoundError, came: str = "") -> NoReturn:
    """Replaces this process by the same command in the environment that has what is missing.

    Args:
        program: the console script; `python -m module` is the same.
        came: the environment that this command has come to from another one; '': this is its first.

    Raises:
        ModuleNotFoundError: what is missing is a part of this program: a defect.
        ConfigError: there is no such environment, it lacks the package, too, or the command has gone on once already.
    """
    package = (missing.name or "").partition(".")[0]
    if not package or package in OURS:
        raise missing
    name = environment_of(package)
    python = interpreter(name)
    command = " ".join([program, *sys.argv[1:2]])
    if came or Path(sys.prefix).resolve() == python.parent.parent.resolve():
        raise ConfigError(
            f"`{command}` needs {package}, which the {came or name} environment at {sys.prefix} lacks: "
            "`make environments` makes it anew"
        )
    if not python.exists():
        raise ConfigError(
            f"`{command}` runs in the {name} environment ({package} is not in {sys.prefix}), and there is none at "
            f"{python.parent.parent}: `make environments` makes it, JD_ENVS says where it is"
        )
    sys.stdout.flush()
    sys.stderr.flush()
    os.environ[SWITCHED] = name
    script = python.with_name(program)  # unlike `-m` it does not look for modules in the working directory first
    same = [str(script)] if Path(sys.argv[0]).name == program and script.exists() else [str(python), "-m", module]
    os.execv(same[0], [*same, *sys.argv[1:]])
