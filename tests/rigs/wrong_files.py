"""Gives commands wrong files, in one process per environment: python -m rigs.wrong_files < CASES > OUTCOMES.

Both are JSON: cases as `[program, words, path, kind]`, outcomes as `[status, output]`. `path` is damaged in the way
that `kind` names while the command runs, and put right again. Importing what a command needs costs a second in a new
process, a hundred commands in one cost that once.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

from streaming.ops import exits

MODULES = {exits.SCORE: "streaming", exits.BATCH: "batch"}
PATIENCE_S = 120
GARBAGE = bytes(range(255, 0, -1)) * 40
FILE_KINDS = ("missing", "empty", "garbage", "folder", "loop", "unreadable")
FOLDER_KINDS = ("missing", "file", "bare", "loop")


@contextlib.contextmanager
def damaged(path: Path, kind: str) -> Iterator[None]:
    """`path` is not what it should be; afterwards it is what it was.

    A link to itself cannot be opened, whoever asks; a file without rights only by those who have no right to all.
    """
    kept = path.with_name(f".{path.name}.kept")
    mode = path.stat().st_mode if path.exists() else 0
    if kind == "unreadable":
        path.chmod(0)
    else:
        if path.exists():
            path.rename(kept)
        if kind == "loop":
            path.symlink_to(path.name)
        elif kind in ("folder", "bare"):
            path.mkdir()
        elif kind != "missing":
            path.write_bytes(b"" if kind == "empty" else GARBAGE)
    try:
        yield
    finally:
        if kind == "unreadable":
            path.chmod(mode)
        else:
            if path.is_symlink() or path.is_file():
                path.unlink()
            elif path.is_dir():
                shutil.rmtree(path)
            if kept.exists():
                kept.rename(path)


class Hung(BaseException):
    """A command did not end."""


def hung(*_: object) -> None:
    raise Hung


def outcome(program: str, words: list[str]) -> tuple[object, str]:
    """Exit status and output of a command; a traceback is a part of the output."""
    module = MODULES[program]
    app = importlib.import_module(f"{module}.cli.commands").app
    out = io.StringIO()
    status: object = 0
    sys.argv = [program, *words]
    os.environ["JD_INTENT_ENVIRONMENT"] = "neither"
    signal.alarm(PATIENCE_S)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            exits.main(program, module, app)
        except SystemExit as ended:
            status = ended.code
        except BaseException:
            status = 1
            traceback.print_exc(file=out)
    signal.alarm(0)
    return status, out.getvalue()


def main() -> None:
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries that print below Python do not spoil the answer
    signal.signal(signal.SIGALRM, hung)
    found = []
    for program, words, path, kind in json.load(sys.stdin):
        with damaged(Path(path), kind):
            found.append(outcome(program, words))
    json.dump(found, answer)
    answer.close()


if __name__ == "__main__":
    main()
