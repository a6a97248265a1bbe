"""The one way in which a command writes a folder: whole or not at all, and never over what is not its own.

    with replacing(out, "features", inputs=[data]) as fresh:
        ...                                     # write into `fresh`: it takes the place of `out` at the end

A folder that was written holds a marker, `.jd-intent`: the kind of the folder, the version that made it, and each file
with its size and time. What is in a folder and not in its marker, or of another size or time, is somebody else's, an
empty folder, too. A folder is written where there is none, where it is empty, and where all that is in it is of the
kind that is written; else it is refused, or, with `force`, what goes is told first. Never written: a folder that is,
holds or lies within an input; the root, home, working and program's folder, and what holds one of them.

The new folder is made beside the old one and exchanged with it in one step. A run that fails leaves the old one and
nothing besides; what a killed run leaves is swept by the next one that writes there.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase as fnmatch
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from streaming.errors import OutputRefused
from streaming.files.overlap import refuse_overlap
from streaming.files.work_folder import LAST, beside, is_work, put, sweep

__all__ = ["EVERYTHING", "MARKER", "Say", "appending", "check", "link", "made", "mark", "refuse_new", "replacing"]

MARKER = LAST
MADE_BY = {
    "world": "`jd-intent-batch generate`",
    "history": "`jd-intent-batch backfill`",
    "features": "`jd-intent-batch extract`",
    "dataset": "`jd-intent-batch prepare` or `encode`",
    "checkpoint": "`jd-intent-batch train`",
    "evaluation": "`jd-intent-batch evaluate`",
    "matches": "`jd-intent-batch match`",
    "comparison": "`jd-intent-batch report`",
    "artifact": "`jd-intent-batch export`",
    "outfile": "SELECT … INTO OUTFILE",
    "demo": "`make demo`",
    "application": "`jd-intent-score init`",
    "environment": "`make environments`",
    "backend": "`python -m deploy.triton.server`",
}
FORCELESS = ("outfile", "application", "environment", "backend")
"""Kinds whose writers have no `--force`."""

EVERYTHING = ("*",)
"""As `own`: whatever is in the folder is the command's, now and later."""

Say = Callable[[str], None]

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NAMES_MAX = 5  # of what is removed, that are told


@dataclass(frozen=True)
class _Marker:
    """What `.jd-intent` says: files by their path in the folder → bytes, and when each was written (ns).

    An empty folder is a file of 0 bytes whose path ends in a slash, and has no time. `own`: entries of the folder that
    are the command's with whatever is in them.
    """

    kind: str
    files: dict[str, int]
    times: dict[str, int]
    own: Collection[str]


@contextlib.contextmanager
def replacing(
    folder: Path, kind: str, *, inputs: Iterable[Path] = (), force: Say | None = None, own: Sequence[str] = ()
) -> Iterator[Path]:
    """An empty folder, which takes the place of `folder` when the block ends without an error, and else vanishes.

    Args:
        folder: a link to a folder stands for that folder.
        kind: a key of `MADE_BY`.
        inputs: files and folders that are read.
        force: removes what is not of this kind, too; told before what will be removed. None refuses.
        own: entries that come later (logs, state) and are the command's all the same.

    Raises:
        OutputRefused: see `check`; also when something came into `folder` that was not told.
        OSError: the disk is full; it names `folder`.
    """
    told = check(folder, kind, inputs=inputs, force=force)
    place = Path(os.path.realpath(folder))
    with beside(place) as work:
        fresh = work / "new"
        fresh.mkdir()
        if place.exists():
            shutil.copymode(place, fresh)
        try:
            yield fresh
            mark(fresh, kind, own)
        except OSError as error:
            if error.errno in _FULL and error.filename is None:  # a write does not say where
                error.filename = os.fspath(folder)
            raise
        refuse_new(folder, kind, told)
        put(work, place)


@contextlib.contextmanager
def appending(folder: Path, kind: str) -> Iterator[Path]:
    """An empty folder, whose files come to those of `folder`, which exists, when the block ends without an error.

    Nothing that is there is changed; a file appears whole.

    Raises:
        OutputRefused: `folder` is a file, or has a file of that name.
    """
    place = Path(os.path.realpath(folder))
    if not place.is_dir():
        raise OutputRefused(f"{folder} is a file, not a folder")
    with beside(place) as work:
        fresh = work / "new"
        fresh.mkdir()
        yield fresh
        for file in sorted(fresh.iterdir()):
            if os.path.lexists(place / file.name):
                raise _is_there(folder, file.name)
        marker = _read(place)
        if marker is None and not _entries(place):
            marker = _Marker(kind, {}, {}, ())
        if marker is not None and marker.kind == kind:  # first told, then done: what is told and missing does no harm
            changed = {stranger.name for stranger in _strangers(place, kind)}  # and stays so
            files = {name: size for name, size in marker.files.items() if name not in changed}
            times = {name: time for name, time in marker.times.items() if name not in changed}
            fresh_files = dict(_files(fresh))
            _write(place, _Marker(kind, files | _sizes(fresh_files), times | _times(fresh_files), marker.own))
        for file in sorted(fresh.iterdir()):
            try:
                _link(file, place / file.name)
            except FileExistsError:
                raise _is_there(folder, file.name) from None


def check(folder: Path, kind: str, *, inputs: Iterable[Path] = (), force: Say | None = None) -> set[str]:
    """Refuses a folder that must not be written; tells `force` what will be removed, and returns it. Removes nothing.

    Raises:
        OutputRefused: it is a file; it is, holds or lies within an input or a folder that nobody may replace; without
            `force`, something in it is not of this kind. The message names the folder and the first such thing.
    """
    place = Path(os.path.realpath(folder))
    if place.exists() and not place.is_dir():
        raise OutputRefused(f"{folder} is a file, not a folder")
    refuse_overlap(folder, inputs)
    sweep(place)
    if force is None:
        for stranger in _strangers(place, kind):
            raise _refusal(folder, kind, stranger.why)
        return set()
    strangers = list(_strangers(place, kind))
    if not strangers:
        return set()
    names = ", ".join(stranger.name for stranger in strangers[:_NAMES_MAX])
    more = f" and {len(strangers) - _NAMES_MAX:,} more" if len(strangers) > _NAMES_MAX else ""
    size = sum(stranger.size for stranger in strangers)
    files = "1 file" if len(strangers) == 1 else f"{len(strangers):,} files"
    force(f"--force removes {files} ({size:,} bytes) from {folder}: {names}{more}")
    return {stranger.name for stranger in strangers}


def refuse_new(folder: Path, kind: str, told: Collection[str]) -> None:
    """Refuses what has come into a folder since `check` returned `told`.

    Raises:
        OutputRefused: it names the first such thing.
    """
    for stranger in _strangers(Path(os.path.realpath(folder)), kind):
        if stranger.name not in told:
            raise _refusal(folder, kind, stranger.why)


def mark(folder: Path, kind: str, own: Sequence[str] = (), *, names: Sequence[str] = EVERYTHING) -> None:
    """Writes the marker: what is in `folder` now is of this kind, and the entries `own` with what they will hold.

    Args:
        names: patterns of what files may be called; others are not of this kind.
    """
    found = dict(_files(folder)) if own != EVERYTHING else {}
    found = {path: at for path, at in found.items() if any(fnmatch(os.path.basename(path), name) for name in names)}
    files = {name: at for name, at in found.items() if name.partition("/")[0] not in own}
    _write(folder, _Marker(kind, _sizes(files), _times(files), own))


def made(folder: Path) -> list[str]:
    """The files that its marker names and that are there, by their path in a folder; none where there is no marker."""
    marker = _read(folder)
    names = [] if marker is None else marker.files
    return sorted(name for name in names if not name.endswith("/") and os.path.lexists(folder / name))


def link(source: Path, target: Path) -> None:
    """The file `source` is `target`, too: by a hard link, or copied where the disk has none. Makes the folders.

    Raises:
        FileExistsError: `target` is there: writing to it would change whatever else it is a link to.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target, follow_symlinks=False)
    except FileExistsError:
        raise
    except OSError:
        shutil.copy2(source, target, follow_symlinks=False)


# -- whose it is -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Stranger:
    """Something in a folder that is not of the kind to be written: its path in it, its bytes, why it is none."""

    name: str
    size: int
    why: str


def _refusal(folder: Path, kind: str, why: str) -> OutputRefused:
    force = "" if kind in FORCELESS else ", or give --force, which says what it removes"
    return OutputRefused(f"{folder} {why}; name a new or an empty folder{force}")


def _is_there(folder: Path, name: str) -> OutputRefused:
    return OutputRefused(f"{folder} has a file {name} already")


def _strangers(place: Path, kind: str) -> Iterator[_Stranger]:
    """All that is not of this kind in a folder that is to be written, in order; nothing: the folder may go."""
    entries = _entries(place)
    if not entries:
        return
    maker, marker = MADE_BY[kind], _read(place)
    if marker is None:
        files = [*_files(place), *([(MARKER, (place / MARKER).lstat())] if MARKER in entries else [])]
        for name, size in [(name, _size(name, at)) for name, at in files] or [(entries[0], 0)]:
            yield _Stranger(name, size, f"holds {name} and no {MARKER}: {maker} did not make it")
        return
    other = f"was made by {MADE_BY.get(marker.kind, marker.kind)}, not by {maker}" if marker.kind != kind else ""
    homes = {name[: end + 1] for name in marker.files for end, letter in enumerate(name) if letter == "/"}
    for name, at in _files(place):
        if name in homes:  # also of files that were removed since
            continue
        if other:
            yield _Stranger(name, _size(name, at), f"{other}: it holds {name}")
        elif marker.own == EVERYTHING or name.partition("/")[0] in marker.own:
            continue
        elif name not in marker.files:
            yield _Stranger(name, _size(name, at), f"holds {name}, which {maker} did not make")
        elif at.st_size != marker.files[name] or at.st_mtime_ns != marker.times.get(name, at.st_mtime_ns):
            yield _Stranger(name, at.st_size, f"holds {name}, which was changed since {maker} made it")


def _entries(place: Path) -> list[str]:
    """Names in a folder, but for a command's work (see `beside`); none where there is no folder."""
    if not place.is_dir():
        return []
    return sorted(name for name in os.listdir(place) if not is_work(place / name))


def _size(name: str, at: os.stat_result) -> int:
    """Bytes of a file; a folder has none."""
    return 0 if name.endswith("/") else at.st_size


def _sizes(files: dict[str, os.stat_result]) -> dict[str, int]:
    return {name: _size(name, at) for name, at in files.items()}


def _times(files: dict[str, os.stat_result]) -> dict[str, int]:
    return {name: at.st_mtime_ns for name, at in files.items() if not name.endswith("/")}


def _files(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Files, links and empty folders (with a slash at the end) below a folder, in order, by their path in it.

    Not the marker, nor what Python makes of code that it runs there (Triton's model).
    """
    for top, folders, names in os.walk(folder):
        links = [name for name in folders if os.path.islink(os.path.join(top, name))]
        folders[:] = sorted(name for name in folders if top != os.fspath(folder) or not is_work(folder / name))
        if not names and not folders and top != os.fspath(folder):
            yield os.path.relpath(top, folder).replace(os.sep, "/") + "/", os.lstat(top)
        for name in sorted([*names, *links]):
            if _is_byte_code(Path(top, name)):
                continue
            if top == os.fspath(folder) and name in (MARKER, f"{MARKER}.writing"):
                continue
            path = os.path.join(top, name)
            yield os.path.relpath(path, folder).replace(os.sep, "/"), os.lstat(path)


def _is_byte_code(path: Path) -> bool:
    """Made by Python of code that lies beside it? Without that code it is somebody's."""
    return (
        path.suffix == ".pyc"
        and path.parent.name == "__pycache__"
        and (path.parent.parent / f"{path.name.partition('.')[0]}.py").is_file()
    )


def _read(folder: Path) -> _Marker | None:
    """The marker; None where there is none that can be read: then the folder is somebody else's."""
    try:
        told = json.loads((folder / MARKER).read_bytes())
        files = {name: int(size) for name, size in told["files"].items()}
        times = {name: int(time) for name, time in told.get("times", {}).items()}
        return _Marker(str(told["kind"]), files, times, tuple(map(str, told["own"])))
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _write(folder: Path, marker: _Marker) -> None:
    try:
        made_by = version("jd-intent-scorer")
    except PackageNotFoundError:  # run from a checkout that is not installed
        made_by = "unknown"
    told: dict[str, object] = {"kind": marker.kind, "version": made_by, "own": list(marker.own)}
    told |= {"files": marker.files, "times": marker.times}
    writing = folder / f"{MARKER}.writing"
    writing.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    writing.replace(folder / MARKER)


def _link(source: Path, target: Path) -> None:
    """`target` is there at once and whole.

    Raises:
        FileExistsError: it is there already.
    """
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:  # a disk without hard links
        os.close(os.open(target, os.O_CREAT | os.O_EXCL))
        source.replace(target)
