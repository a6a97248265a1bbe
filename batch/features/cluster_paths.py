"""A path or URI as a cluster's TaskManager takes it: is it a folder of this machine, and does it touch another one?

Read as Hadoop's `Path` does: nothing is decoded, `?` and `#` are letters like others.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import NamedTuple

from streaming.errors import BadInput

__all__ = ["ClusterPath", "cluster_path"]

_URI = re.compile(r"(?:(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*):)?(?://(?P<host>[^/]*))?(?P<path>.*)", re.DOTALL)


class ClusterPath(NamedTuple):
    """`path` without scheme, host, `.`, `..` and doubled slashes; whether it may be a path of this machine."""

    path: str
    local: bool

    @property
    def here(self) -> Path | None:
        """The folder on this machine; None where there is none, nor one that it would be made in."""
        path = Path(self.path)
        return path if self.local and (path.exists() or path.parent.is_dir()) else None

    def touches(self, other: ClusterPath) -> bool:
        """Whether one is, holds or lies within the other, by name: one file system has many hosts and schemes."""
        one, two = (place.path.rstrip("/") + "/" for place in (self, other))
        return one.startswith(two) or two.startswith(one)


def cluster_path(given: str) -> ClusterPath:
    """Takes a path or URI apart.

    Raises:
        BadInput: it is relative: the cluster has another working folder; or begins with `//`, which means a host there.
    """
    found = _URI.fullmatch(given)
    scheme, host, path = found.groups() if found else (None, None, "")
    if scheme is None and host is not None:
        raise BadInput(f"{given}: the cluster takes what follows // for a host; write one /")
    if host and not path:
        path = "/"
    if not path.startswith("/"):
        raise BadInput(f"{given}: not absolute, and the cluster's working folder is not the one here")
    path = posixpath.normpath(re.sub("/+", "/", path))
    local = scheme is None or (scheme.lower() == "file" and (host or "localhost").lower() == "localhost")
    return ClusterPath(path, local)
