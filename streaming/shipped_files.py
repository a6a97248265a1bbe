"""Files that are no code and come with the program: the SQL scripts, what an export to Triton needs, the sample
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
"""The applications that come with the program, each a folder: `jd`, `talkingdata`."""

TRITON_FOLDER = (_SHIPPED / "triton").resolve()
"""`config.pbtxt` and `config.oneflow.pbtxt` (templates), and `model.py`, which Triton's Python backend runs."""

SAMPLE_CONFIGURATION = (_SHIPPED / "scorer.toml").resolve()
"""Every key of the configuration, with its default and what it means."""


def app_folder(name: str) -> Path:
    """The folder of an application: `sql/jd` is the program's own where the working folder has none.

    Args:
        name: a path, as `app` of the configuration.
    """
    path = Path(name)
    own = SQL_FOLDER / path.name
    return own if path.parent == Path("sql") and own.is_dir() and not path.is_dir() else path
