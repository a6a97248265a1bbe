"""Makes what the project runs in: two Python environments, compiled kernels and Kafka's jars.

    python3 -m deploy.environments            # makes what is missing, says what it does and how long it took
    python3 -m deploy.environments spark      # the optional third: Spark with OpenMLDB's batch engine
    python3 -m deploy.environments peers      # what the benchmarks measure beside the scorer: Quix Streams
    python3 -m deploy.environments docs       # what builds the site of docs/, and tests it
    python3 -m deploy.environments prometheus # Debian's Prometheus, in which `make test` tries alerts and dashboard
    python3 -m deploy.environments browser    # Debian's Chromium, in which `make test` tries the board

Two environments, because openmldb pins an importlib-metadata that nvidia-pytriton cannot live with. Only the standard
library is used here: this file runs on whatever `python3` the machine has. What is made goes to `.envs/`, or to the
folder that JD_ENVS names; a stamp beside each part holds the hash of what it was made from: a second run skips it.
Packages come as the lock files in deploy/requirements have them (`deploy/lock.py` makes these), by their hashes.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

from streaming.errors import OutputRefused
from streaming.files.output_folder import EVERYTHING, mark, replacing

__all__ = [
    "Missing",
    "chromium",
    "folder",
    "interpreter",
    "java",
    "kafka_jars",
    "make",
    "make_browser",
    "make_docs",
    "make_peers",
    "make_prometheus",
    "make_uv",
    "prometheus",
]

REPOSITORY = Path(__file__).resolve().parent.parent
REQUIREMENTS = REPOSITORY / "deploy" / "requirements"
# environment -> the lock files that it is made from; the scorer's also holds what checks the code
ENVIRONMENTS = {"scorer": ("build.txt", "scorer.txt", "test.txt"), "model": ("build.txt", "model.txt")}
SPARK = ("build.txt", "spark.txt")
PEERS = ("build.txt", "peers.txt")
DOCS = ("build.txt", "docs.txt")
UV = ("build.txt", "uv.txt")
SOURCES = ("pyspark",)  # has no wheel
SPARK_JAR = "openmldb-spark.jar"  # in the Spark environment's own folder, where batch/features/spark.py looks for it
INSTALL_TIMEOUT_S = 1800


class Missing(SystemExit):
    """Something the machine must bring is not there; the message names the command that installs it."""


def folder() -> Path:
    """Where the environments live: JD_ENVS, by default `.envs` in the repository."""
    return Path(os.environ.get("JD_ENVS") or REPOSITORY / ".envs").resolve()


def interpreter(name: str) -> Path:
    """The Python of the environment `scorer`, `model`, `spark`, `peers`, `docs` or `uv`.

    Raises:
        Missing: it has not been made yet.
    """
    path = folder() / name / "bin" / "python"
    if not path.exists():
        raise Missing(f"there is no environment at {path.parent.parent}: run `make environments`")
    return path


def kafka_jars() -> Path:
    """The folder of Kafka's jars."""
    path = folder() / "kafka" / "libs"
    if not path.is_dir():
        raise Missing(f"Kafka's jars are not at {path}: run `make environments`")
    return path


def java() -> str:
    """The `java` to run Kafka with: version 17 or newer."""
    found = shutil.which("java")
    home = os.environ.get("JAVA_HOME")
    if home and Path(home, "bin", "java").exists():
        found = str(Path(home, "bin", "java"))
    if found is None:
        raise Missing("Java 17 is not on PATH: apt-get install openjdk-17-jre-headless")
    told = subprocess.run([found, "-version"], capture_output=True, text=True, check=False).stderr
    major = re.search(r'version "(\d+)', told)
    if major is None or int(major[1]) < 17:
        version = told.strip() if major is None else major[1]
        raise Missing(f"{found} is Java {version}, Kafka 4 needs 17: apt-get install openjdk-17-jre-headless")
    return found


def prometheus(program: str) -> str:
    """The path of `prometheus` or `promtool`: what `make test` fetched, else the one on PATH.

    Raises:
        Missing: there is neither.
    """
    fetched = folder() / "prometheus" / "usr" / "bin" / program
    found = str(fetched) if fetched.exists() else shutil.which(program)
    if found is None:
        raise Missing(
            f"{program} is neither at {fetched} nor on PATH: `make prometheus`, or apt-get install prometheus"
        )
    return found


def chromium() -> str:
    """The path of Chromium.

    Raises:
        Missing: it is not on PATH.
    """
    found = shutil.which("chromium")
    if found is None:
        raise Missing("chromium is not on PATH: `make browser` as root, or apt-get install chromium")
    return found


def _python310() -> str:
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    candidates = [
        shutil.which("python3.10"),
        *map(str, sorted(pyenv.glob("versions/3.10.*/bin/python3.10"), reverse=True)),
    ]
    for candidate in candidates:
        # pyenv's shim is on PATH even where it would refuse to run, and Debian's may lack the makings of a venv: ask
        ask = [candidate or "", "-c", "import ctypes, ensurepip, venv"]
        if candidate and subprocess.run(ask, capture_output=True, check=False).returncode == 0:
            return candidate
    raise Missing(
        "Python 3.10 is neither on PATH nor under pyenv (OneFlow has no wheel for a newer one): "
        "`pyenv install 3.10` or `apt-get install python3.10 python3.10-venv`"
    )


def _maven() -> str:
    maven = shutil.which("mvn")
    if maven is None:
        raise Missing("Maven is not on PATH: apt-get install maven")
    return maven


def _digest(*parts: bytes) -> str:
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def _step(title: str, stamp: Path, digest: str) -> bool:
    """True where the part must be made; says which."""
    fresh = stamp.exists() and stamp.read_text() == digest
    print(f"  {title}: {'is there' if fresh else 'making'}", flush=True)
    return not fresh


def _run(argv: list[str], why: str, cwd: Path | None = None) -> None:
    done = subprocess.run(argv, timeout=INSTALL_TIMEOUT_S, check=False, cwd=cwd)
    if done.returncode:
        raise SystemExit(f"{why} failed with status {done.returncode}: {' '.join(argv)}")


def _install(python: Path, locks: list[Path], sources: tuple[str, ...] = ()) -> None:
    """What the lock files list and nothing else, each file with a hash that stands there. Only wheels, which run
    nothing when they are installed, but for the packages `sources`."""
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--require-hashes"]
    wheels = ["--no-deps", "--only-binary", ":all:", "--no-build-isolation"]
    wheels += [word for package in sources for word in ("--no-binary", package)]
    pins = [word for lock in locks for word in ("--requirement", str(lock))]
    _run([*pip, *wheels, *pins], f"installing {', '.join(lock.name for lock in locks)}")


def _clear(home: Path, stamp: Path) -> None:
    """Makes `home` an empty folder, where it is none that somebody else made.

    JD_ENVS may be any folder, and what has the name of a part in it may be a user's.
    """
    if stamp.exists() and home.is_dir():
        mark(home, "environment", EVERYTHING)  # an older release made it, and left no marker
    try:
        with replacing(home, "environment", own=EVERYTHING):
            stamp.unlink(missing_ok=True)
    except OutputRefused as error:
        raise SystemExit(f"{error} with JD_ENVS") from None


def _make_environment(name: str, requirements: tuple[str, ...]) -> None:
    """Makes a virtual environment out of lock files, in place of an older one."""
    home = folder() / name
    files = [REQUIREMENTS / file for file in requirements]
    stamp = folder() / f"{name}.stamp"
    digest = _digest(*(file.read_bytes() for file in files))
    if _step(f"{name} environment", stamp, digest):
        started = time.monotonic()
        _clear(home, stamp)
        _run([_python310(), "-m", "venv", str(home)], f"making the {name} environment")
        build, *rest = files
        _install(home / "bin" / "python", [build])  # its pip installs the rest
        _install(home / "bin" / "python", rest, SOURCES)
        stamp.write_text(digest)
        print(f"  {name} environment: made in {time.monotonic() - started:.0f} s", flush=True)


def _link_project(name: str) -> None:
    """The project itself, in place; again where environments are shared and this is another checkout, or the commands
    changed."""
    stamp = folder() / f"{name}.stamp"
    link = folder() / f"{name}.project"
    digest = _digest(str(REPOSITORY).encode(), (REPOSITORY / "setup.cfg").read_bytes(), stamp.read_bytes())
    if not link.exists() or link.read_text() != digest:
        python = str(folder() / name / "bin" / "python")
        pip = [python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--quiet"]
        _run([*pip, "--no-deps", "--no-build-isolation", "--editable", str(REPOSITORY)], "installing the project")
        link.write_text(digest)


def _make_kafka() -> None:
    pom = REPOSITORY / "deploy" / "kafka" / "pom.xml"
    home = folder() / "kafka"
    stamp = folder() / "kafka.stamp"
    digest = _digest(pom.read_bytes())
    if not _step("Kafka's jars", stamp, digest):
        return
    maven = _maven()
    started = time.monotonic()
    _clear(home, stamp)
    goal = ["dependency:copy-dependencies", f"-DoutputDirectory={home / 'libs'}"]
    _run([maven, "--quiet", "--batch-mode", "--file", str(pom), *goal], "fetching Kafka's jars")
    stamp.write_text(digest)
    print(f"  Kafka's jars: fetched in {time.monotonic() - started:.0f} s", flush=True)


def _make_spark_jar() -> None:
    """One jar out of Maven's, its native library without debugging symbols where the machine has `strip`.

    486 MB become 70: every Spark executor unpacks the library into its temporary folder.
    """
    pom = REPOSITORY / "deploy" / "spark" / "pom.xml"
    jar = folder() / "spark" / SPARK_JAR
    stamp = folder() / "spark-jar.stamp"
    digest = _digest(pom.read_bytes(), (folder() / "spark.stamp").read_bytes())
    if not _step("OpenMLDB's batch engine for Spark", stamp, digest):
        return
    maven = _maven()
    started = time.monotonic()
    stamp.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(dir=folder()) as work:
        argv = [maven, "--quiet", "--batch-mode", "--file", str(pom), f"-Dout={work}/maven", "package"]
        _run(argv, "fetching OpenMLDB's batch engine")
        made = Path(work) / SPARK_JAR
        _strip_libraries(Path(work) / "maven" / "openmldb-spark-1.jar", made)
        made.replace(jar)
    stamp.write_text(digest)
    print(f"  OpenMLDB's batch engine: {jar.stat().st_size >> 20} MB in {time.monotonic() - started:.0f} s", flush=True)


def _strip_libraries(source: Path, target: Path) -> None:
    strip = shutil.which("strip")
    if strip is None:
        shutil.copyfile(source, target)
        return
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist():
            if entry.filename.endswith(".so"):
                library = old.extract(entry, target.parent)
                _run([strip, library], "stripping OpenMLDB's library")
                new.write(library, entry.filename)
            else:
                new.writestr(entry, old.read(entry))


def _make_oracle() -> None:
    """OpenMLDB's engine for tests and benchmarks: its library unpacked, Oracle.java compiled where there is a javac."""
    source = REPOSITORY / "deploy" / "openmldb" / "Oracle.java"
    home = folder() / "spark"
    stamp = folder() / "spark-oracle.stamp"
    digest = _digest(source.read_bytes(), (folder() / "spark-jar.stamp").read_bytes())
    if not _step("OpenMLDB's engine in process", stamp, digest):
        return
    javac = Path(shutil.which("javac") or Path(java()).with_name("javac"))
    if not javac.exists():
        print("  no javac: tests and benchmarks do without OpenMLDB's engine (apt-get install openjdk-17-jdk-headless)")
        return
    stamp.unlink(missing_ok=True)
    with zipfile.ZipFile(home / SPARK_JAR) as jar:
        jar.extract("libhybridse_jsdk_core.so", home / "native")
    gson = next(home.glob("lib/python*/site-packages/pyspark/jars/gson-*.jar"))
    argv = [
        str(javac),
        "-proc:none",
        "-nowarn",
        "-XDignore.symbol.file",
        "-XDsuppressNotes",
        "-d",
        str(home / "oracle"),
    ]
    _run([*argv, "-cp", f"{home / SPARK_JAR}:{gson}", str(source)], "compiling Oracle.java")
    stamp.write_text(digest)


def _fetch_prometheus(home: Path) -> None:
    """Debian's package, verified by apt's keys and only unpacked: it changes nothing of the machine, nor needs root."""
    apt, dpkg = shutil.which("apt-get"), shutil.which("dpkg")
    if apt is None or dpkg is None:
        raise Missing(
            "Prometheus is not on PATH, and there is no apt-get and dpkg to fetch it with: "
            "install its programs `prometheus` and `promtool`, 2.42 or newer"
        )
    with tempfile.TemporaryDirectory(dir=folder()) as work:
        # _apt, as which root downloads, may not be allowed into this folder
        ask = [apt, "--quiet=2", "--option", "APT::Sandbox::User=root"]
        if subprocess.run([*ask, "download", "prometheus"], cwd=work, capture_output=True, check=False).returncode:
            # The machine's package list is missing or old: one of our own.
            (Path(work) / "lists" / "partial").mkdir(parents=True)
            ask += ["--option", f"Dir::State::Lists={work}/lists", "--option", f"Dir::Cache={work}/cache"]
            _run([*ask, "update"], "asking for Debian's list of packages")
            _run([*ask, "download", "prometheus"], "fetching Prometheus", Path(work))
        (package,) = Path(work).glob("prometheus_*.deb")
        _run([dpkg, "--extract", str(package), str(home)], "unpacking Prometheus")


def make_prometheus() -> None:
    """Fetches Prometheus, where it is not on PATH.

    Raises:
        Missing: nor is apt-get.
    """
    with _alone():
        home, stamp = folder() / "prometheus", folder() / "prometheus.stamp"
        if all(shutil.which(program) for program in ("prometheus", "promtool")):
            print("  Prometheus: is on PATH")
        elif _step("Prometheus", stamp, _digest(b"unpacked")):
            _clear(home, stamp)
            _fetch_prometheus(home)
            stamp.write_text(_digest(b"unpacked"))


def make_browser() -> None:
    """Installs Debian's Chromium, where it is not on PATH: it wants so many libraries that it cannot only be unpacked.

    Raises:
        Missing: it cannot, as this is not root, or there is no apt-get.
    """
    with _alone():
        if shutil.which("chromium"):
            print("  Chromium: is on PATH")
            return
        apt = shutil.which("apt-get")
        if apt is None or os.geteuid() != 0:
            raise Missing("Chromium is not on PATH, and only root can install it: apt-get install chromium")
        install = [apt, "--quiet=2", "--no-install-recommends", "--yes", "install", "chromium"]
        environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        print("  Chromium: apt-get installs it", flush=True)
        if subprocess.run(install, capture_output=True, check=False, env=environ).returncode:
            _run([apt, "--quiet=2", "update"], "asking for Debian's list of packages")
            _run(install, "installing Chromium")


def _make_kernels() -> None:
    """Compiles the embedded engine's kernels into their cache: otherwise the first command that needs them does."""
    stamp = folder() / "kernels.stamp"
    sources = sorted((REPOSITORY / "streaming" / "engine").rglob("*.py"))
    digest = _digest((folder() / "scorer.stamp").read_bytes(), *(source.read_bytes() for source in sources))
    if _step("the engine's kernels", stamp, digest):
        started = time.monotonic()
        _run([str(interpreter("scorer")), "-m", "streaming.engine.native.warm"], "compiling the engine's kernels")
        stamp.write_text(digest)
        print(f"  the engine's kernels: compiled in {time.monotonic() - started:.0f} s", flush=True)


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Holds the folder's lock: of two `make` at once the second waits, then finds all there."""
    folder().mkdir(parents=True, exist_ok=True)
    print(f"environments in {folder()}", flush=True)
    with (folder() / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def make() -> None:
    """Makes both environments, compiles kernels and fetches Kafka's jars, whatever of it is missing or out of date.

    Raises:
        Missing: Python 3.10, Java 17 or Maven is not on the machine.
    """
    with _alone():
        java()  # what is missing is told before minutes of installing, not after
        if not (folder() / "kafka.stamp").exists():
            _maven()
        if not all((folder() / f"{name}.stamp").exists() for name in ENVIRONMENTS):
            _python310()
        for name, requirements in ENVIRONMENTS.items():
            _make_environment(name, requirements)
            _link_project(name)
        _make_kernels()
        _make_kafka()


def make_spark() -> None:
    """Makes the environment of `jd-intent-batch extract --engine spark`; nothing else needs it.

    Raises:
        Missing: Python 3.10, Java 17 or Maven is not on the machine.
    """
    with _alone():
        java()
        _make_environment("spark", SPARK)
        _make_spark_jar()
        _make_oracle()


def make_peers() -> None:
    """Makes the environment of what the benchmarks measure beside the scorer; nothing else needs it.

    Raises:
        Missing: Python 3.10 is not on the machine.
    """
    with _alone():
        _make_environment("peers", PEERS)


def make_docs() -> None:
    """Makes the environment of `make docs`.

    Raises:
        Missing: Python 3.10 is not on the machine.
    """
    with _alone():
        _make_environment("docs", DOCS)


def make_uv() -> None:
    """Makes the environment of `make lock`.

    Raises:
        Missing: Python 3.10 is not on the machine.
    """
    with _alone():
        _make_environment("uv", UV)


def main() -> None:
    parts = {
        "": make,
        "spark": make_spark,
        "peers": make_peers,
        "docs": make_docs,
        "prometheus": make_prometheus,
        "browser": make_browser,
    }
    asked = " ".join(sys.argv[1:])
    if asked not in parts:
        raise SystemExit(f"{asked!r} is no environment to make by itself: nothing, {', '.join(filter(None, parts))}")
    parts[asked]()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
