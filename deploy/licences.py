"""Writes docs/reference/licences.md: what every locked package says of its licence. `make licences`

Each environment's own Python is asked; what the metadata leaves open is said here, with where it was read.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from deploy.environments import DOCS, ENVIRONMENTS, PEERS, REPOSITORY, REQUIREMENTS, SPARK, UV, interpreter, make_uv
from deploy.lock import LOCKS, pins

__all__ = ["PAGE", "Package", "licence", "locked", "read"]

PAGE = REPOSITORY / "docs" / "reference" / "licences.md"
ASKED = {**ENVIRONMENTS, "spark": SPARK, "peers": PEERS, "docs": DOCS, "uv": UV}

# name, version, License-Expression, License and the licence classifiers of all that is installed
ASK = """
import importlib.metadata, json
print(json.dumps([
    [d.metadata["Name"], d.version, d.metadata["License-Expression"], d.metadata["License"],
     [c for c in d.metadata.get_all("Classifier") or [] if c.startswith("License ::")]]
    for d in importlib.metadata.distributions()
]))
"""

# Whose metadata says none, or says it in its own words: read in the licence file of the package or its repository.
READ = {
    "axe-playwright-python": "MIT AND MPL-2.0",  # the latter is axe-core's, which is in it
    "oneflow": "Apache-2.0",
    "openmldb": "Apache-2.0",
    "prettytable": "BSD-3-Clause",
    "pyspark": "Apache-2.0",
    "python-dateutil": "Apache-2.0 OR BSD-3-Clause",
}

HEADER = """# Licences

What every package in the lock files says of its licence; written by `make licences`, not by hand.

This project is under the Apache License 2.0 (LICENSE) and ships none of these packages: `make environments` and the
Dockerfiles fetch them. Who hands images on hands on the packages in them, too: mind those marked ⚠, which are not
plain permissive licences. NVIDIA's libraries come under NVIDIA's own terms. Beside these: Apache Kafka, and for Spark
OpenMLDB's batch engine (Apache License 2.0), with what they depend on, whose licences lie in their jars
(deploy/kafka/pom.xml, deploy/spark/pom.xml); Debian's Prometheus (Apache License 2.0)
and Chromium (BSD-3-Clause and others), for tests.

| package | version | licence | locks |
|---|---|---|---|
"""

PERMISSIVE = re.compile(
    r"(MIT|BSD|0BSD|3-Clause BSD|Apache|ISC|PSF|Python|Python Software Foundation|ZPL|Zlib|HPND|LLVM-exception|CNRI)"
    r"([- ](License|Software License|Clause|CMU|Python|exception|v?\d[\d.]*))*",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Package:
    """A row of the page."""

    name: str
    version: str
    licence: str
    locks: tuple[str, ...]

    @property
    def permissive(self) -> bool:
        """Are all the parts of the expression permissive?"""
        parts = re.split(r" AND | OR | WITH |, |[()]", self.licence)
        return all(PERMISSIVE.fullmatch(part.strip()) for part in parts if part.strip())


def normal(name: str) -> str:
    """A package's name as the lock files have it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def locked() -> dict[tuple[str, str], tuple[str, ...]]:
    """(name, version) → the lock files that have it."""
    found: dict[tuple[str, str], tuple[str, ...]] = {}
    for lock in LOCKS:
        for name, block in pins((REQUIREMENTS / f"{lock}.txt").read_text()).items():
            key = name, block.split("==")[1].split()[0]
            found[key] = (*found.get(key, ()), lock)
    return found


def licence(name: str, expression: str | None, text: str | None, classifiers: list[str]) -> str:
    """One line out of a package's metadata; "" where it says nothing that is one."""
    if name in READ:
        return READ[name]
    if expression:
        return expression
    short = (text or "").strip()
    if short and short != "UNKNOWN" and "\n" not in short and len(short) < 60:
        return short
    named = [words[-1] for c in classifiers if (words := c.split(" :: "))[-1] not in {"OSI Approved", "License"}]
    return ", ".join(dict.fromkeys(re.sub(r" \(.*\)$", "", one) for one in named))


def read() -> list[Package]:
    """The rows of the page."""
    rows = re.findall(
        r"^\| (\S+) \| (\S+) \| (?:⚠ )?(.+?) \| (.+?) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE
    )
    return [
        Package(name, version, text, tuple(locks.split(", ")))
        for name, version, text, locks in rows
        if name != "package"
    ]


def main() -> None:
    make_uv()
    said: dict[tuple[str, str], str] = {}
    for environment in ASKED:
        python = interpreter(environment)
        told = subprocess.run(
            [str(python), "-c", ASK], check=True, capture_output=True, text=True, cwd=Path("/")
        ).stdout
        for name, version, expression, text, classifiers in json.loads(told):
            said[normal(name), version] = licence(normal(name), expression, text, classifiers)
    packages = [Package(*key, said.get(key, ""), locks) for key, locks in sorted(locked().items())]
    silent = [f"{package.name} {package.version}" for package in packages if not package.licence]
    if silent:
        sys.exit(f"no licence known, say it in {Path(__file__).name}: {', '.join(silent)}")
    rows = "".join(
        f"| {p.name} | {p.version} | {'' if p.permissive else '⚠ '}{p.licence} | {', '.join(p.locks)} |\n"
        for p in packages
    )
    PAGE.write_text(HEADER + rows, encoding="utf-8")
    print(f"{PAGE.relative_to(REPOSITORY)}: {len(packages)} packages")


if __name__ == "__main__":
    main()
