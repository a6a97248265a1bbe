"""What a newcomer reads when the machine lacks something."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy import environments


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine with nothing on it: no PATH, no pyenv, no environments yet."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    monkeypatch.setenv("JD_ENVS", str(tmp_path / "envs"))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    (tmp_path / "bin").mkdir()
    return tmp_path


def program(folder: Path, name: str, script: str) -> None:
    file = folder / "bin" / name
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)


JAVA_17 = "echo 'openjdk version \"17-ea\" 2021-09-14' >&2"


def test_missing_python_is_named_with_its_command(bare: Path) -> None:
    program(bare, "java", JAVA_17)
    program(bare, "mvn", "exit 0")
    with pytest.raises(environments.Missing, match=r"Python 3\.10 .*pyenv install 3\.10"):
        environments.make()


def test_a_shim_that_refuses_to_run_is_no_python(bare: Path) -> None:
    program(bare, "java", JAVA_17)
    program(bare, "mvn", "exit 0")
    program(bare, "python3.10", "echo 'command not found' >&2; exit 127")
    with pytest.raises(environments.Missing, match=r"Python 3\.10"):
        environments.make()


def test_missing_java_is_named_with_its_command(bare: Path) -> None:
    with pytest.raises(environments.Missing, match=r"Java 17 .*apt-get install openjdk-17"):
        environments.make()


def test_an_old_java_is_named(bare: Path) -> None:
    program(bare, "java", "echo 'openjdk version \"11.0.2\" 2019-01-15' >&2")
    with pytest.raises(environments.Missing, match=r"is Java 11, Kafka 4 needs 17"):
        environments.java()


def test_missing_maven_is_named_with_its_command(bare: Path) -> None:
    program(bare, "java", JAVA_17)
    with pytest.raises(environments.Missing, match=r"Maven .*apt-get install maven"):
        environments.make()


def test_a_file_of_the_lock_s_name_keeps_what_is_in_it(bare: Path) -> None:
    (bare / "envs").mkdir()
    (bare / "envs" / "lock").write_text("mine")
    with pytest.raises(environments.Missing, match="Java 17"):
        environments.make()
    assert (bare / "envs" / "lock").read_text() == "mine"


def test_an_environment_that_was_not_made_is_named(bare: Path) -> None:
    with pytest.raises(environments.Missing, match="make environments"):
        environments.interpreter("model")


APT = """echo "$@" >> "$(dirname "$0")/calls"
case "$*" in
    *update*) touch "$(dirname "$0")/updated";;
    *download*) test -e "$(dirname "$0")/updated" && touch prometheus_2_amd64.deb;;
esac"""
DPKG = 'mkdir -p "$3/usr/bin"; echo "#!/bin/sh" > "$3/usr/bin/promtool"'


def test_prometheus_comes_from_debian_s_package_after_a_list_of_its_own(bare: Path) -> None:
    for name in ("touch", "dirname", "mkdir"):
        (bare / "bin" / name).symlink_to(f"/usr/bin/{name}")
    program(bare, "apt-get", APT)
    program(bare, "dpkg", DPKG)
    environments.make_prometheus()
    assert environments.prometheus("promtool") == str(bare / "envs" / "prometheus" / "usr" / "bin" / "promtool")
    first, update, download = (bare / "bin" / "calls").read_text().splitlines()
    assert "Dir::State::Lists" not in first, "the machine's own list is asked first"
    for call in (update, download):
        assert f"Dir::State::Lists={bare}/envs/" in call, "nothing of the machine is written to"
    environments.make_prometheus()
    assert len((bare / "bin" / "calls").read_text().splitlines()) == 3, "it is there"


def test_prometheus_on_path_is_taken(bare: Path) -> None:
    program(bare, "prometheus", "exit 0")
    program(bare, "promtool", "exit 0")
    environments.make_prometheus()
    assert environments.prometheus("prometheus") == str(bare / "bin" / "prometheus")


def test_prometheus_that_cannot_be_fetched_is_named(bare: Path) -> None:
    with pytest.raises(environments.Missing, match="no apt-get and dpkg to fetch it with: install its programs"):
        environments.make_prometheus()
    with pytest.raises(environments.Missing, match=r"promtool is neither at .* `make prometheus`"):
        environments.prometheus("promtool")
