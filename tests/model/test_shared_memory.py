"""Ids through shared memory, with a real Triton: equal scores, restarts, refusals, and nothing left behind."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from fixtures.model import FIELDS, write_repository
from fixtures.scorer import wait_until
from places import REPOSITORY
from structlog.testing import capture_logs
from tritonclient.grpc import InferenceServerClient

from deploy.process import ProcessFailed
from deploy.triton.server import Ports, Triton
from streaming.errors import ModelUnavailable
from streaming.model import shared_memory
from streaming.model.shared_memory import FOLDER, PREFIX, REGIONS_MAX, Region, is_this_host
from streaming.model.triton import Model

Ids = npt.NDArray[np.int64]

# Each answer tells which ids it was made of.
ECHO = "return (ids.astype(np.float64).sum(1, keepdims=True) / 2.0**70 % 1).astype(np.float32)"
START_TIMEOUT_S = 120.0
THROUGH, OVER = "ids go through shared memory", "ids go over gRPC, shared memory cannot be used"


def some_ids(count: int, seed: int = 0) -> Ids:
    return np.random.default_rng(seed).integers(-(2**63), 2**63 - 1, (count, FIELDS), dtype=np.int64)


def expected(ids: Ids) -> list[float]:
    scores = (ids.astype(np.float64).sum(1) / 2.0**70 % 1).astype(np.float32)
    return [float(score) for score in scores]


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Triton]:
    """A Triton that answers ECHO behind a Unix socket; tests must leave it running."""
    folder = tmp_path_factory.mktemp("shm")
    with Triton(write_repository(folder / "repository", ECHO), folder / "t", private=True) as server:
        yield server


def files_of(pid: int) -> list[Path]:
    return sorted(FOLDER.glob(f"{PREFIX}{pid}_*"))


def registered(server: Triton) -> set[str]:
    with InferenceServerClient(server.grpc_url) as client:
        return set(client.get_system_shared_memory_status().regions)


def test_ids_go_through_shared_memory_and_nothing_is_left(private: Triton) -> None:
    with Model(private.grpc_url) as model, capture_logs() as logs:
        assert model.prepare(FIELDS)
        (file,) = files_of(os.getpid())
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert file.name in registered(private)
        for count in (1, 7, 4096, 10_000):
            ids = some_ids(count, seed=count)
            assert model.score(ids).probabilities.tolist() == expected(ids)
            assert np.array_equal(np.fromfile(file, np.int64, ids.size).reshape(ids.shape), ids)  # it went that way
        assert len(model.score(some_ids(0)).probabilities) == 0
    assert [entry["event"] for entry in logs] == [THROUGH]
    assert files_of(os.getpid()) == []
    assert file.name not in registered(private)


def test_the_first_call_does_not_wait_for_a_region(private: Triton) -> None:
    with Model(private.grpc_url) as model:
        ids = some_ids(3)
        assert model.score(ids).probabilities.tolist() == expected(ids)
        wait_until(lambda: bool(files_of(os.getpid())), "a region made beside the calls")


def test_more_calls_than_regions_go_inline(private: Triton) -> None:
    with Model(private.grpc_url, batch_size_max=50) as model:
        assert model.prepare(FIELDS)
        batches = [some_ids(150, seed) for seed in range(3 * REGIONS_MAX)]
        for _ in range(5):
            calls = [model.submit(ids) for ids in batches]
            assert [call.result().probabilities.tolist() for call in calls] == [expected(ids) for ids in batches]
        assert 1 <= len(files_of(os.getpid())) <= REGIONS_MAX
    assert files_of(os.getpid()) == []


def test_calls_of_several_threads_do_not_mix(private: Triton) -> None:
    wrong: list[int] = []
    with Model(private.grpc_url) as model:
        model.prepare(FIELDS)

        def run(seed: int) -> None:
            for turn in range(20):
                ids = some_ids(1 + turn * 37, seed * 100 + turn)
                if model.score(ids).probabilities.tolist() != expected(ids):
                    wrong.append(seed)

        threads = [threading.Thread(target=run, args=(seed,)) for seed in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_wider_ids_than_the_region_was_made_for_go_inline(private: Triton) -> None:
    with Model(private.grpc_url, batch_size_max=10) as model:
        assert model.prepare(3)
        ids = some_ids(10)
        assert model.score(ids).probabilities.tolist() == expected(ids)


def test_a_server_that_was_started_again_is_told_anew(small_repository: Callable[[str], Path], tmp_path: Path) -> None:
    ports, ids = Ports.free(), some_ids(5)
    server = Triton(small_repository(ECHO), tmp_path / "t", ports, private=True).start()
    try:
        with Model(server.grpc_url) as model:
            assert model.prepare(FIELDS)
            (old,) = registered(server)
            server.kill()
            with pytest.raises(ModelUnavailable):
                model.score(ids)
            server.start()
            model.wait_ready(START_TIMEOUT_S)
            assert registered(server) == set()
            # No call fails for it, and the next ones have a region again.
            assert model.score(ids).probabilities.tolist() == expected(ids)
            assert model.prepare(FIELDS)
            assert model.score(ids).probabilities.tolist() == expected(ids)
            (new,) = registered(server)
            assert new != old
            assert [file.name for file in files_of(os.getpid())] == [new]
        assert registered(server) == set()
    finally:
        server.stop()
    assert not list((tmp_path / "t" / "grpc").iterdir())


def test_a_server_that_refuses_gets_them_over_grpc(small_repository: Callable[[str], Path], tmp_path: Path) -> None:
    with (
        Triton(small_repository(ECHO), tmp_path / "t") as server,
        Model(server.grpc_url) as model,
        capture_logs() as logs,
    ):
        assert not model.prepare(FIELDS)
        for seed in range(3):
            ids = some_ids(100, seed)
            assert model.score(ids).probabilities.tolist() == expected(ids)
        assert not model.prepare(FIELDS)
        assert files_of(os.getpid()) == []
    assert [(entry["event"], "restricted" in entry["why"]) for entry in logs] == [(OVER, True)]


def test_memory_that_cannot_be_had_is_no_error(
    private: Triton, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_memory, "FOLDER", tmp_path / "nowhere")
    with Model(private.grpc_url) as model, capture_logs() as logs:
        assert not model.prepare(FIELDS)
        ids = some_ids(4)
        assert model.score(ids).probabilities.tolist() == expected(ids)
    assert [entry["event"] for entry in logs] == [OVER]


KILLED = f"""
import sys, time
from streaming.model.triton import Model
model = Model(sys.argv[1])
assert model.prepare({FIELDS})
print("there", flush=True)
time.sleep(600)
"""


def test_what_a_killed_client_leaves_goes_with_the_next(private: Triton) -> None:
    argv = [sys.executable, "-c", KILLED, private.grpc_url]
    with subprocess.Popen(argv, cwd=REPOSITORY, stdout=subprocess.PIPE) as client:
        try:
            assert client.stdout is not None
            assert b"there\n" in iter(client.stdout.readline, b"")
            with Model(private.grpc_url) as model:
                assert model.prepare(FIELDS)
                assert len(files_of(client.pid)) == 1, "a live one's stays"
        finally:
            client.send_signal(signal.SIGKILL)
    (left,) = files_of(client.pid)
    assert left.name in registered(private)
    with Model(private.grpc_url) as model:
        assert model.prepare(FIELDS)
    assert files_of(client.pid) == []
    assert left.name not in registered(private)


def test_a_region_is_its_owners_as_long_as_it_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_memory, "FOLDER", tmp_path)
    region = Region.make(4096, 0)
    path = tmp_path / region.name
    shared_memory._remove_ownerless(path)
    assert path.exists()
    ids = some_ids(3)
    region.write(ids)
    assert np.array_equal(np.fromfile(path, np.int64, ids.size).reshape(ids.shape), ids)  # as the server sees it
    region.remove()
    assert not path.exists()
    path.touch()
    with path.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        shared_memory._remove_ownerless(path)
        assert path.exists()
    shared_memory._remove_ownerless(path)
    assert not path.exists()


@pytest.mark.parametrize(
    ("url", "here"),
    [
        ("unix:/run/triton/s:8001", True),
        ("localhost:8001", True),
        ("127.0.0.1:8001", True),
        ("127.8.0.1:8001", True),
        ("[::1]:8001", True),
        (f"{socket.gethostname()}:8001", True),
        ("triton:8001", False),
        ("10.0.0.1:8001", False),
        ("localhost.example:8001", False),
    ],
)
def test_which_addresses_are_this_host(url: str, here: bool) -> None:
    assert is_this_host(url) is here


def test_the_socket_is_this_users_alone(private: Triton) -> None:
    path = Path(private.grpc_url.removeprefix("unix:"))
    assert stat.S_ISSOCK(path.stat().st_mode)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_path_that_no_socket_can_have_is_named(small_repository: Callable[[str], Path], tmp_path: Path) -> None:
    server = Triton(small_repository(ECHO), tmp_path / ("x" * 100), private=True)
    with pytest.raises(ProcessFailed, match="longer than the 107 bytes"):
        server.start()
