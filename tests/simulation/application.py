"""The application of all schedules: the tutorial's, in which records without a value delete users and products where
the store can delete."""

from __future__ import annotations

import functools
import re
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from places import SQL

from streaming.app.folder import App, load_app

__all__ = ["DELETABLE", "simulated_app"]

DELETABLE = ("users", "products")
"""Streams whose tombstones delete; those of the comments are refused."""


@functools.cache
def simulated_app(store: str = "embedded") -> App:
    """
    Args:
        store: `store.kind`; a cluster deletes nothing.
    """
    if store != "embedded":
        return load_app(SQL / "jd")
    with TemporaryDirectory() as folder:
        copy = Path(shutil.copytree(SQL / "jd", Path(folder) / "jd"))
        events = (copy / "events.sql").read_text()
        for topic in DELETABLE:
            events, found = re.subn(rf"WITH \((topic = '{topic}',)", r"WITH (tombstone = 'delete', \1", events)
            assert found == 1
        (copy / "events.sql").write_text(events)
        return load_app(copy)
