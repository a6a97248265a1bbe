"""The lock files: whole, by hash, of setup.cfg's roots, and exactly what is installed; what the pages say of them."""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from deploy import environments, licences
from deploy.environments import REPOSITORY, REQUIREMENTS
from deploy.lock import LOCKS, pins, roots

PIN = re.compile(
    r"[a-z0-9]+(-[a-z0-9]+)*==[^ ]+( \\\n    --hash=sha256:[0-9a-f]{64})+\n(    # via( .*)?\n(    #   .*\n)*)?"
)
VULNERABILITIES = REPOSITORY / "docs" / "reference" / "vulnerabilities.md"


def lock(name: str) -> str:
    return (REQUIREMENTS / f"{name}.txt").read_text()


def versions(names: tuple[str, ...]) -> dict[str, str]:
    """Package → version of some lock files, which have nothing twice."""
    found: dict[str, str] = {}
    for name in names:
        here = {package: block.split("==")[1].split()[0] for package, block in pins(lock(name)).items()}
        assert not found.keys() & here.keys(), name
        found |= here
    return found


def of(environment: str) -> tuple[str, ...]:
    return tuple(file.removesuffix(".txt") for file in licences.ASKED[environment])


def test_there_is_a_lock_for_all_that_is_installed_and_no_other() -> None:
    assert {f"{name}.txt" for name in LOCKS} == {file.name for file in REQUIREMENTS.iterdir()}
    assert {name for environment in licences.ASKED for name in of(environment)} == LOCKS.keys()


@pytest.mark.parametrize("name", LOCKS)
def test_every_line_is_a_pin_with_hashes_and_names_no_place(name: str) -> None:
    comment, *rest = lock(name).splitlines(keepends=True)
    assert comment.startswith("# ")
    assert PIN.sub("", "".join(rest)) == ""
    assert "://" not in lock(name), "which index it came from is each machine's own"


@pytest.mark.parametrize("environment", licences.ASKED)
def test_roots_are_locked_at_versions_that_they_allow(environment: str) -> None:
    locked = versions(of(environment))
    asked = [Requirement(root) for name in of(environment) for extra in LOCKS[name].extras for root in roots(extra)]
    assert asked
    for root in asked:
        assert root.specifier.contains(locked[licences.normal(root.name)], prereleases=True), root


def test_setup_knows_no_extra_that_is_not_locked() -> None:
    extras = {extra for one in LOCKS.values() for extra in one.extras}
    text = (REPOSITORY / "setup.cfg").read_text().split("[options.extras_require]")[1].split("\n[")[0]
    assert extras - {""} == set(re.findall(r"^(\w+) =$", text, re.MULTILINE))


@pytest.mark.parametrize("environment", ["scorer", "model"])
def test_what_is_locked_is_what_is_installed(environment: str) -> None:
    script = "import importlib.metadata as m; print(*(f'{d.name}=={d.version}' for d in m.distributions()))"
    python = str(environments.interpreter(environment))
    told = subprocess.run([python, "-c", script], check=True, capture_output=True, text=True, cwd="/").stdout
    installed = {licences.normal(name): version for name, version in (pin.split("==") for pin in told.split())}
    del installed["jd-intent-scorer"]
    assert installed == versions(of(environment))


def wheel(folder: Path) -> str:
    """Makes a package `tiny` there; its SHA-256."""
    files = {
        "tiny.py": "",
        "tiny-1.dist-info/METADATA": "Metadata-Version: 2.1\nName: tiny\nVersion: 1\n",
        "tiny-1.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    lines = [
        f"{name},sha256={base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b'=').decode()},{len(text)}"
        for name, text in files.items()
    ]
    files["tiny-1.dist-info/RECORD"] = "\n".join([*lines, "tiny-1.dist-info/RECORD,,", ""])
    file = folder / "tiny-1-py3-none-any.whl"
    with zipfile.ZipFile(file, "w") as made:
        for name, text in files.items():
            made.writestr(name, text)
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_what_has_another_hash_or_none_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = wheel(tmp_path)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("PIP_TARGET", str(tmp_path / "installed"))
    file = tmp_path / "tiny.txt"
    for pin in ("tiny==1", f"tiny==1 --hash=sha256:{'0' * 64}"):
        file.write_text(pin)
        with pytest.raises(SystemExit, match=r"installing tiny\.txt failed"):
            environments._install(Path(sys.executable), [file])
        assert not (tmp_path / "installed").exists()
    file.write_text(f"tiny==1 --hash=sha256:{digest}")
    environments._install(Path(sys.executable), [file])
    assert [d.version for d in importlib.metadata.distributions(path=[str(tmp_path / "installed")])] == ["1"]


def test_the_licence_of_every_locked_package_is_told() -> None:
    told = {(package.name, package.version): package.locks for package in licences.read()}
    assert told == licences.locked(), "run `make licences`"
    assert all(package.licence for package in licences.read())
    marked = set(re.findall(r"^\| (\S+) \| \S+ \| ⚠", licences.PAGE.read_text(), re.MULTILINE))
    assert marked == {package.name for package in licences.read() if not package.permissive}


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        (("MIT AND BSD-3-Clause", "ignored", []), "MIT AND BSD-3-Clause"),
        ((None, "MPL-2.0", ["License :: OSI Approved"]), "MPL-2.0"),
        ((None, "A whole\ntext", ["License :: OSI Approved :: MIT License"]), "MIT License"),
        ((None, "UNKNOWN", ["License :: OSI Approved :: ISC License (ISCL)"]), "ISC License"),
        ((None, None, []), ""),
    ],
)
def test_a_licence_is_read_from_what_metadata_has(
    metadata: tuple[str | None, str | None, list[str]], said: str
) -> None:
    assert licences.licence("any", *metadata) == said
    assert licences.licence("oneflow", None, "UNKNOWN", []) == "Apache-2.0"


def test_versions_with_known_vulnerabilities_are_named_as_they_are_locked() -> None:
    table = re.findall(r"^\| ([a-z0-9-]+) (\d\S*) \|", VULNERABILITIES.read_text(), re.MULTILINE)
    assert len(table) >= 4
    locked = {name for name, _ in licences.locked()}
    for name, version in table:
        assert name in locked, name
        assert (name, version) in licences.locked(), f"{name} is no longer at {version}: say what holds now"
