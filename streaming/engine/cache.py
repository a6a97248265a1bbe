"""Where compiled kernels are kept between processes.

Numba checks only the file of the function that it loads, not those of the functions it calls, so that an edited kernel
would go on running in its old form inside its callers. A folder per digest of all kernel sources cannot be stale.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numba

__all__ = ["inner", "kernel", "use_kernel_cache"]

# Entry points are called from Python. Inner kernels are called by kernels only: without wrappers they compile faster.
# A division by 0 is tested for where it may happen.
kernel: Any = numba.njit(cache=True, error_model="numpy")
inner: Any = numba.njit(  # type: ignore[call-overload]
    cache=True, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True
)

_KERNELS = ("strings", "table", "window", "scalar", "aggregate", "kernels", "arrow", "arrowrows", "expire", "memory")


_KEEP_S = 30 * 86_400


def use_kernel_cache() -> None:
    """Points numba at this version's folder; called before any kernel is imported. NUMBA_CACHE_DIR goes before it."""
    # these loops gather and branch: vectorizing them costs half of the compile time and gains nothing
    if "NUMBA_LOOP_VECTORIZE" not in os.environ:
        numba.config.LOOP_VECTORIZE = numba.config.SLP_VECTORIZE = 0  # type: ignore[attr-defined]
    if os.environ.get("NUMBA_CACHE_DIR"):
        return
    digest = hashlib.sha256(numba.__version__.encode())
    for name in _KERNELS:
        digest.update(Path(__file__).with_name(f"{name}.py").read_bytes())
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = home / "jd-intent-scorer" / f"kernels-{digest.hexdigest()[:16]}"
    try:
        if not folder.exists():
            folder.mkdir(parents=True, exist_ok=True)
            for other in folder.parent.glob("kernels-*"):  # of versions that nobody has compiled for a month
                if time.time() - other.stat().st_mtime > _KEEP_S:
                    shutil.rmtree(other, ignore_errors=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(folder)
    except OSError:
        folder = Path(tempfile.gettempdir()) / f"jd-intent-scorer-{os.getuid()}-{digest.hexdigest()[:16]}"
        folder.mkdir(mode=0o700, exist_ok=True)
    numba.config.CACHE_DIR = str(folder)  # type: ignore[attr-defined]
