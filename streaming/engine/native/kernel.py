"""Kernels: functions that are compiled once, kept as object code on disk, and loaded without their compiler.

A kernel is written in the part of Python that numba compiles. `kernel` marks those that Python calls, `inner` those
that only kernels call. The first call loads the object code of all, by the loader of llvmlite; where there is none yet,
two processes of their own compile it first (`object_code`). So no process that serves imports numba.

Arguments of a kernel are what its annotations say (`ARRAYS` and int). They are passed as the tuple that Python makes of
them: to convert a dozen of them one by one takes longer than many a kernel. The compiled code reads address and shape
from numpy's C structure, refuses an array of another kind, and asks Python for the numbers.

The object code lies in a folder per digest of all kernel sources and of this processor: it cannot be stale.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import llvmlite.binding as llvm  # type: ignore[import-untyped]
import numpy as np
import numpy.typing as npt

__all__ = [
    "ARRAYS",
    "INNER",
    "PARTS",
    "SOURCES",
    "UNFIT",
    "Bytes",
    "Flags",
    "Float64",
    "Int64",
    "Kernel",
    "Matrix",
    "inner",
    "kernel",
    "load",
    "long_kernel",
    "symbol",
]

Int64 = npt.NDArray[np.int64]
Matrix = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]
Bytes = npt.NDArray[np.uint8]
Flags = npt.NDArray[np.bool_]

ARRAYS: dict[str, tuple[type[np.generic], int]] = {
    "Int64": (np.int64, 1),
    "Matrix": (np.int64, 2),
    "Float64": (np.float64, 1),
    "Bytes": (np.uint8, 1),
    "Flags": (np.bool_, 1),
}
"""The arrays that kernels take, by the names of their annotations: element and number of dimensions. All lie row by row
without gaps."""

PARTS = {
    "answer": ("kernels.interpreter",),
    "store": (
        "storage.strings",
        "storage.index_keys",
        "storage.table",
        "kernels.arrow_results",
        "storage.arrow_rows",
        "storage.expiry",
    ),
}
"""The modules whose kernels are compiled together, each part in a process of its own."""

UNFIT = -(1 << 62)
"""What a kernel answers when an argument is not the array that it takes."""

INNER = (
    "native.memory",
    "kernels.registers",
    "kernels.indexes",
    "kernels.joins",
    "kernels.window",
    "kernels.columns",
    "kernels.scalar",
    "kernels.aggregates",
)
"""The modules whose functions kernels call."""

CONSTANTS = ("types", "kernels.instructions", "kernels.operands")
"""The modules whose numbers kernels name."""

SOURCES = ("native.kernel", "native.object_code", *CONSTANTS, *INNER, *PARTS["answer"], *PARTS["store"])
"""The modules that the object code depends on."""

_ENGINE = Path(__file__).parents[1]
_KEEP_S = 30 * 86_400

Function = TypeVar("Function", bound=Callable[..., Any])


def inner(function: Function) -> Function:
    """Marks a function that kernels call."""
    function.__kernel__ = True  # type: ignore[attr-defined]
    return function


class Kernel:
    """A function that is compiled, and called from Python.

    Args:
        function: in Python; its annotations say what it takes.
        unlocked: other threads may run Python meanwhile.
    """

    def __init__(self, function: Callable[..., Any], unlocked: bool = False) -> None:
        self.function, self.unlocked = function, unlocked
        self.__doc__ = function.__doc__
        self._call: Callable[..., Any] = self._load

    def __call__(self, *arguments: Any) -> int:
        """Runs it.

        Raises:
            TypeError: an argument is not what the annotation says.
        """
        result: int = self._call(_NDARRAY, arguments)
        if result == UNFIT:
            raise TypeError(f"{self.function.__name__}: an array of another kind, one with gaps, or too few arguments")
        return result

    def _load(self, ndarray: int, arguments: tuple[Any, ...]) -> Any:
        self._call = _PROTOTYPE(load().get_function_address(symbol(self.function)))
        return self._call(ndarray, arguments)

    @property
    def annotations(self) -> dict[str, str]:
        """Names and annotations of the arguments."""
        return {name: kind for name, kind in self.function.__annotations__.items() if name != "return"}


_NDARRAY = id(np.ndarray)
_PROTOTYPE = ctypes.PYFUNCTYPE(ctypes.c_int64, ctypes.c_int64, ctypes.py_object)  # raises what Python has set


def kernel(function: Callable[..., Any]) -> Kernel:
    """Marks a function that is compiled, and called from Python."""
    return Kernel(function)


def long_kernel(function: Callable[..., Any]) -> Kernel:
    """The same; other threads run Python meanwhile, none of which may touch what it works on.

    For what takes long: whoever gives Python's lock away may wait for a thread's whole turn to get it back.
    """
    return Kernel(function, unlocked=True)


def symbol(function: Callable[..., Any]) -> str:
    """The name of a kernel in object code."""
    return f"{function.__module__.rpartition('.')[2]}_{function.__name__}"


_loaded: list[Any] = []


def load() -> Any:
    """The engine of LLVM that holds the object code of all kernels, compiled now where that was never done."""
    if not _loaded:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        machine = llvm.Target.from_default_triple().create_target_machine()
        engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
        for path in _objects():
            engine.add_object_file(llvm.ObjectFileRef.from_path(str(path)))
        engine.finalize_object()
        _loaded.append(engine)
    return _loaded[0]


def _objects() -> list[Path]:
    """The files with the object code of all parts, compiled now where they are not there."""
    folder = _folder()
    paths = {part: folder / f"{part}.o" for part in PARTS}
    if not all(path.exists() for path in paths.values()):
        with (folder / "lock").open("w") as lock:  # of many that start at once, one compiles
            fcntl.flock(lock, fcntl.LOCK_EX)
            _compile({part: path for part, path in paths.items() if not path.exists()})
    return list(paths.values())


def _compile(paths: dict[str, Path]) -> None:
    path = os.pathsep.join([str(Path(__file__).parents[3]), *sys.path])
    environment = {**os.environ, "PYTHONPATH": path, "NUMBA_OPT": "0"}  # a part is optimized as a whole, and once
    command = [sys.executable, "-m", "streaming.engine.native.object_code"]
    started = [subprocess.Popen([*command, part, str(file)], env=environment) for part, file in paths.items()]
    failed = [process.args for process in started if process.wait()]
    if failed:
        raise RuntimeError(f"the kernels were not compiled: {failed}")


def _folder() -> Path:
    """The cache's folder for these sources on this processor, made where it is missing."""
    digest = hashlib.sha256(version("numba").encode())
    digest.update(f"{llvm.get_host_cpu_name()} {llvm.get_host_cpu_features().flatten()} {np.__version__}".encode())
    for name in SOURCES:
        digest.update((_ENGINE / f"{name.replace('.', '/')}.py").read_bytes())
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = home / "jd-intent-scorer" / f"kernels-{digest.hexdigest()[:16]}"
    try:
        if not folder.exists():
            folder.mkdir(parents=True, exist_ok=True)
            for other in folder.parent.glob("kernels-*"):  # of versions that nobody has compiled for a month
                if time.time() - other.stat().st_mtime > _KEEP_S:
                    shutil.rmtree(other, ignore_errors=True)
        whole = all((folder / f"{part}.o").exists() for part in PARTS)
        if not whole and not os.access(folder, os.W_OK):
            raise PermissionError(folder)
    except OSError:
        folder = Path(tempfile.gettempdir()) / f"jd-intent-scorer-{os.getuid()}-{digest.hexdigest()[:16]}"
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.stat().st_uid != os.getuid():
            raise PermissionError(f"{folder} is another user's: code is not loaded from there") from None
    return folder
