"""The real Triton and its client: equal answers, cut batches, and every way to fail."""

from __future__ import annotations

import shutil
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest
from fixtures.model import FIELDS
from places import REPOSITORY

from batch.dataset.read import read_part
from deploy.process import Process, ProcessFailed, free_ports
from deploy.triton.server import SHARED_MEMORY, Ports, Triton
from streaming.errors import ArtifactMismatch, ModelUnavailable
from streaming.model.triton import Model

Ids = npt.NDArray[np.int64]

FLOAT_TOLERANCE = 1e-6
START_TIMEOUT_S = 120.0


def some_ids(count: int, seed: int = 0) -> Ids:
    return np.random.default_rng(seed).integers(-(2**63), 2**63 - 1, (count, FIELDS), dtype=np.int64)


def test_served_probabilities_are_the_evaluated_ones(triton: Triton, tiny_dataset: Path, tiny_checkpoint: Path) -> None:
    part = read_part(tiny_dataset, "test")
    predictions = pq.read_table(tiny_checkpoint / "predictions.parquet")
    expected = predictions.filter(np.array(predictions["part"].to_pylist()) == "test")
    with Model(triton.grpc_url) as model:
        scores = model.score(part.ids)
    assert expected["request_id"].to_pylist() == part.request_ids.to_pylist()
    np.testing.assert_allclose(scores.probabilities, expected["probability"].to_numpy(), atol=FLOAT_TOLERANCE, rtol=0)
    assert scores.version == "1"
    assert scores.probabilities.dtype == np.float32


def test_any_cut_of_a_batch_gives_the_same_scores(triton: Triton, tiny_dataset: Path) -> None:
    ids = read_part(tiny_dataset, "val").ids[:300]
    with Model(triton.grpc_url) as whole, Model(triton.grpc_url, batch_size_max=7) as cut:
        calls = [whole.submit(ids), cut.submit(ids), whole.submit(ids[:1])]
        first, second, single = (call.result() for call in calls)
        assert len(whole.score(ids[:0]).probabilities) == 0
    np.testing.assert_allclose(first.probabilities, second.probabilities, atol=FLOAT_TOLERANCE, rtol=0)
    np.testing.assert_allclose(first.probabilities[:1], single.probabilities, atol=FLOAT_TOLERANCE, rtol=0)


def test_more_rows_than_triton_takes_are_cut(triton: Triton) -> None:
    ids = some_ids(10_001)
    with Model(triton.grpc_url, timeout_s=60) as model:
        assert len(model.score(ids).probabilities) == 10_001
    with (
        Model(triton.grpc_url, timeout_s=60, batch_size_max=20_000) as model,
        pytest.raises(ArtifactMismatch, match="batch-size must be <= 10000"),
    ):
        model.score(ids)


def test_every_int64_has_a_finite_probability(triton: Triton) -> None:
    extremes = np.array(
        [[np.iinfo(np.int64).min] * FIELDS, [np.iinfo(np.int64).max] * FIELDS, [0] * FIELDS, [-1] * FIELDS]
    )
    with Model(triton.grpc_url) as model:
        probabilities = model.score(extremes).probabilities
    assert np.isfinite(probabilities).all()
    # None of these ids was seen in training: all four rows are the cold rows.
    assert len(set(probabilities.tolist())) == 1


def test_the_configuration_names_the_encoder(triton: Triton) -> None:
    with Model(triton.grpc_url) as model:
        assert model.encoder_digest() == "sha256:encoder"
        assert model.ready()


@pytest.mark.parametrize(
    "ids",
    [np.zeros((2, 40), np.int64), np.zeros((2, 41), np.int32), np.zeros(41, np.int64)],
    ids=["40", "int32", "1-d"],
)
def test_ids_of_another_shape_or_type_do_not_fit(triton: Triton, ids: Ids) -> None:
    with Model(triton.grpc_url) as model, pytest.raises(ArtifactMismatch, match=r"shape|int64"):
        model.score(ids)


def test_a_name_that_is_not_served_is_unavailable(triton: Triton) -> None:
    with Model(triton.grpc_url, name="nobody") as model:
        assert not model.ready()
        with pytest.raises(ModelUnavailable, match="nobody"):
            model.score(some_ids(1))
        with pytest.raises(ModelUnavailable, match="nobody"):
            model.encoder_digest()


def test_an_answer_that_is_late_is_unavailable(triton: Triton) -> None:
    with Model(triton.grpc_url, timeout_s=0.001) as model, pytest.raises(ModelUnavailable, match="DEADLINE_EXCEEDED"):
        model.score(some_ids(10_000))


def test_nobody_listening_is_unavailable() -> None:
    (port,) = free_ports(1)
    with Model(f"127.0.0.1:{port}") as model:
        assert not model.ready()
        with pytest.raises(ModelUnavailable, match="UNAVAILABLE"):
            model.score(some_ids(1))
        with pytest.raises(ModelUnavailable, match=r"not ready within 0\.2 s"):
            model.wait_ready(0.2)


def test_a_killed_server_is_found_again(tiny_artifact: Path, tmp_path: Path) -> None:
    ports = Ports.free()
    server = Triton(tiny_artifact / "triton", tmp_path / "first", ports).start()
    try:
        with Model(server.grpc_url) as model:
            before = model.score(some_ids(5))
            prefix = server._shared_memory_prefix
            assert list(SHARED_MEMORY.glob(f"{prefix}*"))
            server.kill()
            assert not list(SHARED_MEMORY.glob(f"{prefix}*"))
            with pytest.raises(ModelUnavailable):
                model.score(some_ids(5))
            assert not model.ready()
            server = Triton(tiny_artifact / "triton", tmp_path / "second", ports).start()
            model.wait_ready(START_TIMEOUT_S)
            after = model.score(some_ids(5))
    finally:
        server.stop()
    assert before.probabilities.tolist() == after.probabilities.tolist()
    assert not list(SHARED_MEMORY.glob(f"{server._shared_memory_prefix}*"))
    assert not server.process.running()


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        ("return np.full((len(ids), 1), np.nan, np.float32)", "answers nan in row 0 of 3, not a probability"),
        ("return np.full((len(ids), 1), 1.5, np.float32)", "answers 1.5 in row 0 of 3, not a probability"),
        ("return np.zeros((len(ids), 2), np.float32)", r"answers float32 \[3, 2\], not float32 \[3, 1\]"),
    ],
)
def test_what_is_no_probability_is_never_passed_on(
    small_repository: Callable[[str], Path], tmp_path: Path, answer: str, complaint: str
) -> None:
    repository = small_repository(answer)
    with (
        Triton(repository, tmp_path / "triton") as server,
        Model(server.grpc_url) as model,
        pytest.raises(ArtifactMismatch, match=complaint),
    ):
        model.score(some_ids(3))


def test_an_error_inside_the_model_is_unavailable(small_repository: Callable[[str], Path], tmp_path: Path) -> None:
    repository = small_repository("raise ValueError('no weights today')")
    with (
        Triton(repository, tmp_path / "triton") as server,
        Model(server.grpc_url) as model,
        pytest.raises(ModelUnavailable, match="no weights today"),
    ):
        model.score(some_ids(3))


def test_a_new_version_is_loaded_on_request(small_repository: Callable[[str], Path], tmp_path: Path) -> None:
    repository = small_repository("return np.full((len(ids), 1), 0.25, np.float32)")
    with Triton(repository, tmp_path / "triton") as server, Model(server.grpc_url) as model:
        old = model.score(some_ids(1))
        code = (repository / "embedding" / "1" / "model.py").read_text()
        (repository / "embedding" / "2").mkdir()
        (repository / "embedding" / "2" / "model.py").write_text(code.replace("0.25", "0.75"))
        server.load()
        model.wait_ready(START_TIMEOUT_S)
        new = model.score(some_ids(1))
        (repository / "embedding" / "3").mkdir()
        (repository / "embedding" / "3" / "model.py").write_text("import nothing_of_that_name")
        with pytest.raises(ProcessFailed, match="nothing_of_that_name"):
            server.load()
        kept = model.score(some_ids(1))
    assert (old.version, old.probabilities[0]) == ("1", 0.25)
    assert (new.version, new.probabilities[0]) == ("2", 0.75)
    assert kept.version == "2"


RECORDED = """

_unrecorded = probabilities


def probabilities(model, rows, batch_size=4096):
    with open({file!r}, "a") as file:
        file.write(f"{{len(rows)}}\\n")
    return _unrecorded(model, rows, batch_size)
"""


def recorded(version: Path, file: Path) -> Path:
    """Makes a version's code write down how many rows each of its passes has."""
    code = version / "deepfm.py"
    code.write_text(code.read_text() + RECORDED.format(file=str(file)))
    return version


def test_every_size_is_run_before_a_version_is_served(tiny_artifact: Path, tmp_path: Path) -> None:
    repository = shutil.copytree(tiny_artifact / "triton", tmp_path / "repository")
    model, files = repository / "embedding", [tmp_path / "1", tmp_path / "2"]
    shutil.copytree(model / "1", model / "2")
    for number, file in enumerate(files, 1):
        recorded(model / str(number), file)
    sizes = [1 << power for power in range(13)]  # to the 4,096 rows of a pass: larger batches are cut there
    config = model / "config.pbtxt"
    with Triton(repository, tmp_path / "triton") as server, Model(server.grpc_url) as client:
        assert [int(rows) for rows in files[0].read_text().split()] == sizes
        assert not files[1].exists()
        assert client.score(some_ids(300)).version == "1"
        assert [int(rows) for rows in files[0].read_text().split()] == [*sizes, 300]

        text = config.read_text()
        assert "versions: [ 1 ]" in text
        config.write_text(text.replace("versions: [ 1 ]", "versions: [ 2 ]"))
        server.load()
        # On trial, with one score asked for, and again before it is served.
        assert [int(rows) for rows in files[1].read_text().split()] == [*sizes, 1, *sizes]
        client.wait_ready(START_TIMEOUT_S)
        assert client.score(some_ids(300)).version == "2"


def test_a_folder_without_the_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProcessFailed, match=r"config\.pbtxt does not exist"):
        Triton(tmp_path, tmp_path / "triton").start()


def test_a_model_that_does_not_load_ends_the_start(small_repository: Callable[[str], Path], tmp_path: Path) -> None:
    repository = small_repository("return None")
    (repository / "embedding" / "1" / "model.py").write_text("raise RuntimeError('broken on purpose')")
    server = Triton(repository, tmp_path / "triton")
    with pytest.raises(ProcessFailed, match="broken on purpose"):
        server.start()
    assert not server.process.running()


def test_a_broken_configuration_ends_the_start(small_repository: Callable[[str], Path], tmp_path: Path) -> None:
    repository = small_repository("return None")
    (repository / "embedding" / "config.pbtxt").write_text("name: embedding {")
    with pytest.raises(ProcessFailed, match=r"config\.pbtxt|embedding"):
        Triton(repository, tmp_path / "triton").start()


def test_an_occupied_port_ends_the_start(small_repository: Callable[[str], Path], tmp_path: Path) -> None:
    repository = small_repository("return np.zeros((len(ids), 1), np.float32)")
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        taken = holder.getsockname()[1]
        ports = Ports(grpc=taken, http=free_ports(1)[0], metrics=free_ports(1)[0])
        server = Triton(repository, tmp_path / "triton", ports)
        with pytest.raises(ProcessFailed, match=str(taken)):
            server.start()
    with pytest.raises(RuntimeError, match="not started"):  # nothing runs
        _ = server.process


def test_the_launcher_serves_until_it_is_told_to_stop(small_repository: Callable[[str], Path], tmp_path: Path) -> None:
    repository = small_repository("return np.full((len(ids), 1), 0.5, np.float32)")
    ports = Ports.free()
    argv = [sys.executable, "-m", "deploy.triton.server", "--repository", str(repository)]
    argv += ["--folder", str(tmp_path / "triton"), "--grpc-port", str(ports.grpc), "--http-port", str(ports.http)]
    argv += ["--metrics-port", str(ports.metrics)]
    with (
        Process("launcher", argv, tmp_path / "launcher.log", cwd=REPOSITORY) as launcher,
        Model(f"127.0.0.1:{ports.grpc}") as model,
    ):
        launcher.wait_ready(lambda: "gRPC" in launcher.log.read_text(), START_TIMEOUT_S)
        assert model.ready()
        assert model.score(some_ids(1)).probabilities.tolist() == [0.5]
        assert launcher.stop() == 0
        assert not model.ready()
    assert f"gRPC 127.0.0.1:{ports.grpc}" in (tmp_path / "launcher.log").read_text()
    assert not list(SHARED_MEMORY.glob(f"jd_triton_{launcher.pid}_*"))
