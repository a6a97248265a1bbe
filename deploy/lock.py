"""Makes the lock files of deploy/requirements out of the roots in setup.cfg: every package, its version, its hashes.

    python3 -m deploy.lock              # versions stay where they fit; what is new or must move moves
    python3 -m deploy.lock NAME …       # these are lifted to their newest

uv resolves, for Linux on x86-64 and Python 3.10 (nvidia-pytriton's wheel needs glibc 2.35), in an environment of its
own. It asks whatever package index the machine is set up with; no index is named in the files.
"""

from __future__ import annotations

import configparser
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from deploy.environments import REPOSITORY, REQUIREMENTS, interpreter, make_uv

__all__ = ["LOCKS", "Lock", "pins", "roots"]

# What no release allows, and works: openmldb wants IPython <= 7.30.1 for its magic commands in notebooks.
OVERRIDES = ["ipython>=7.31.1,<8  # CVE-2022-21699"]
PLATFORM = ["--python-version", "3.10", "--python-platform", "x86_64-manylinux_2_35"]


@dataclass(frozen=True)
class Lock:
    """One lock file.

    Attributes:
        extras: of setup.cfg, that it is made for; "" is install_requires.
        upon: locks of the same environment that are installed before it: what they hold is not repeated.
    """

    title: str
    extras: tuple[str, ...]
    upon: tuple[str, ...] = ("build",)


# In this order: each stands upon earlier ones.
LOCKS = {
    "build": Lock("What installs the project itself, first in every environment.", ("build",), ()),
    "scorer": Lock("The scorer's environment.", ("", "scorer")),
    "model": Lock("The model's environment: OneFlow, and Triton out of nvidia-pytriton's wheel.", ("", "model")),
    "test": Lock("What checks the code, in the scorer's environment.", ("", "scorer", "test"), ("build", "scorer")),
    "spark": Lock("The optional environment of `jd-intent-batch extract --engine spark` (Java 17).", ("spark",)),
    "peers": Lock("What the benchmarks measure beside the scorer (`make bench-environment`).", ("peers",)),
    "docs": Lock("What builds the site of docs/ (`make docs`).", ("docs",)),
    "uv": Lock("What `make lock` resolves with.", ("uv",)),
}


def roots(extra: str) -> list[str]:
    """The requirements of an extra of setup.cfg; of the project itself for ""."""
    setup = configparser.ConfigParser()
    setup.read(REPOSITORY / "setup.cfg", encoding="utf-8")
    text = setup["options.extras_require"][extra] if extra else setup["options"]["install_requires"]
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def pins(text: str) -> dict[str, str]:
    """Name → its part of a lock file: the pin, its hashes and a comment that says who needs it."""
    blocks = re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE | re.IGNORECASE)
    return {block.split("==")[0]: block for block in blocks if "==" in block}


def _resolve(name: str, lock: Lock, lifted: list[str], work: Path) -> str:
    """What uv makes of a lock's roots; the files of `work` are named in its comments."""
    (work / f"{name}.in").write_text("\n".join(root for extra in lock.extras for root in roots(extra)))
    old = [REQUIREMENTS / f"{each}.txt" for each in (name, *lock.upon)]
    # The versions that uv prefers are those in the file that it writes to.
    (work / f"{name}.txt").write_text("\n".join(file.read_text() for file in old if file.exists()))
    argv = [str(interpreter("uv").with_name("uv")), "pip", "compile", "--quiet", "--no-header", "--generate-hashes"]
    argv += [*PLATFORM, f"{name}.in", "--output-file", f"{name}.txt"]
    argv += [word for each in lock.upon for word in ("--constraint", str(REQUIREMENTS / f"{each}.txt"))]
    (work / "overrides.in").write_text("\n".join(OVERRIDES))
    argv += ["--override", "overrides.in"]
    argv += [word for each in lifted for word in ("--upgrade-package", each)]
    if subprocess.run(argv, cwd=work, check=False).returncode:
        raise SystemExit(f"{name}.txt: no versions fit together")
    return (work / f"{name}.txt").read_text()


def main() -> None:
    make_uv()
    with tempfile.TemporaryDirectory() as work:
        for name, lock in LOCKS.items():
            below = {each for other in lock.upon for each in pins((REQUIREMENTS / f"{other}.txt").read_text())}
            found = pins(_resolve(name, lock, sys.argv[1:], Path(work)))
            own = [block for each, block in found.items() if each not in below]
            header = f"# {lock.title} Made by `make lock` out of setup.cfg; not by hand.\n"
            (REQUIREMENTS / f"{name}.txt").write_text(header + "".join(own))
            print(f"  {name}.txt: {len(own)} packages", flush=True)


if __name__ == "__main__":
    main()
