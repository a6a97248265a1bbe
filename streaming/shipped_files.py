"""Files that are no code and come with the program: applications, what an export to Triton needs, the sample
configuration.

In a checkout `streaming/shipped/` links to where a reader looks for them: `sql/`, `deploy/triton/`,
`deploy/scorer.toml`. A wheel holds the files themselves in the same place (`package_data` in setup.cfg says which).

May be imported by: everything. May import: nothing of the project.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

__all__ = ["SAMPLE_CONFIGURATION", "SQL_FOLDER", "TRITON_FOLDER", "app_folder"]

_SHIPPED = Path(str(files("streaming"))) / "shipped"

SQL_FOLDER = (_SHIPPED / "sql").resolve()
"""The applications that come with the program, a folder each."""

TRITON_FOLDER = (_SHIPPED / "triton").resolve()
"""`config.pbtxt` and `config.oneflow.pbtxt` (templates), and `model.py`, which Triton's Python backend runs."""

SAMPLE_CONFIGURATION = (_SHIPPED / "scorer.toml").resolve()
"""Every key of the configuration, with its default and what it means."""


def app_folder(name: str | Path = "sql/jd") -> Path:
    """The folder of an application: `sql/NAME` is the program's own where the working folder has none.

    Args:
        name: a path; one that begins with `sql/` may mean an application that comes with the program.
    """
    path = Path(name)
    if path.parts[:1] == ("sql",) and len(path.parts) == 2 and not path.is_dir():
        own = SQL_FOLDER / path.parts[1]
        return own if own.is_dir() else path
    return path
