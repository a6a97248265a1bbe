"""Ids to purchase probabilities: a gRPC client of the model `embedding` in Triton.

`Model.submit` returns at once, so that the next batch's features are computed while Triton works; `Call.result` waits.
One gRPC channel lives as long as the `Model`: it finds a restarted server again by itself. Where the server's address
is one of this host and the server takes it, ids go through shared memory (`streaming.model.shared_memory`), otherwise
over the channel; the log says which.
"""

from __future__ import annotations

import functools
import time
from concurrent.futures import Future, wait
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from tritonclient.grpc import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException

from streaming.errors import ArtifactMismatch, ModelUnavailable
from streaming.model.shared_memory import Region, Regions, is_this_host
from streaming.ops.background import in_thread
from streaming.ops.waiting import Waiting, steady

__all__ = ["Call", "Model", "Scores"]

INPUT = "INPUT_0"
OUTPUT = "OUTPUT_0"
BATCH_SIZE_MAX = 10_000  # `max_batch_size` of config.pbtxt
CONTROL_TIMEOUT_S = 2.0  # readiness and configuration are answered from memory
READY_POLL_S = 0.1
LATE_S = 1.0  # gRPC's own deadline fires first; this one only guards against a channel that never calls back

CHANNEL = [
    # No keepalive pings: Triton answers more than one in five minutes with GOAWAY (too_many_pings), which fails the
    # call under way; a dead peer is noticed by a call's own deadline.
    # A restarted server is tried again each second: gRPC's default backs off to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 2_000),  # also how long a busy server may take to shake hands
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # 10,000 rows of 41 ids are 3.3 MB, below gRPC's 4 MB for what comes in; what goes out has no limit.
]

# What the server answers when request and model do not fit. Anything else may pass.
PERMANENT = frozenset({"StatusCode.INVALID_ARGUMENT", "StatusCode.UNIMPLEMENTED"})


@dataclass(frozen=True)
class Scores:
    """Probabilities float32 [n], each in [0, 1], and the model version that made all of them ("" where n is 0)."""

    probabilities: npt.NDArray[np.float32]
    version: str


class Call:
    """One batch under way.

    Args:
        model: its name, for messages.
        parts: rows of each request that it went out as, and the answer to come.
        deadline: monotonic seconds, until which the answers may come.
    """

    def __init__(self, model: str, parts: list[tuple[int, Future[Any]]], deadline: float) -> None:
        self._model = model
        self._parts = parts
        self._deadline = deadline

    def wait(self, timeout_s: float) -> bool:
        """Waits for at most `timeout_s`; true: `result` will not block."""
        left_s = max(0.0, self._deadline + LATE_S - time.monotonic())
        return not wait((future for _, future in self._parts), min(timeout_s, left_s)).not_done or left_s <= timeout_s

    def result(self) -> Scores:
        """Waits for the answer, at most until the model's timeout has passed since `submit`.

        Raises:
            ModelUnavailable: no answer in time, no connection, not loaded, or an error inside the server; trying again
                may help.
            ArtifactMismatch: the server refuses shape or type of the ids, or answers with anything but one probability
                for each row; trying again does not help.
        """
        scored = [self._wait(rows, future) for rows, future in self._parts]
        versions = sorted({version for _, version in scored})
        if len(versions) > 1:
            # The batch was larger than one request and a new version came in between.
            raise ModelUnavailable(f"model {self._model} changed between parts of one batch: versions {versions}")
        if not scored:
            return Scores(np.empty(0, np.float32), "")
        return Scores(np.concatenate([probabilities for probabilities, _ in scored]), versions[0])

    def _wait(self, rows: int, future: Future[Any]) -> tuple[npt.NDArray[np.float32], str]:
        try:
            answer = future.result(max(0.0, self._deadline + LATE_S - time.monotonic()))
        except FutureTimeoutError as error:
            raise ModelUnavailable(f"model {self._model}: no answer in time") from error
        return _checked(self._model, answer, rows), str(answer.get_response().model_version)


class Model:
    """The client. Calls may come from several threads.

    Args:
        url: `host:port` of Triton's gRPC, or `unix:PATH`.
        name: of the model.
        timeout_s: for one batch, from `submit` to the answer.
        batch_size_max: rows of one request; larger batches go out as several. The model's `max_batch_size`.
    """

    def __init__(
        self, url: str, name: str = "embedding", timeout_s: float = 5.0, batch_size_max: int = BATCH_SIZE_MAX
    ) -> None:
        self.url = url
        self.name = name
        self.timeout_s = timeout_s
        self.batch_size_max = batch_size_max
        self._client = InferenceServerClient(url, channel_args=CHANNEL)
        self._regions = Regions(self._client, url) if is_this_host(url) else None

    def ready(self) -> bool:
        """Is the server up and the model loaded?"""
        try:
            return bool(self._client.is_model_ready(self.name, client_timeout=CONTROL_TIMEOUT_S))
        except InferenceServerException:
            return False

    def wait_ready(self, timeout_s: float) -> None:
        """Waits until `ready`.

        Raises:
            ModelUnavailable: `timeout_s` passed.
        """
        waiting = Waiting(timeout_s, steady(READY_POLL_S, READY_POLL_S))
        while not self.ready():
            if waiting.is_over:
                raise ModelUnavailable(f"model {self.name} at {self.url} was not ready within {timeout_s:g} s")
            waiting.rest()

    def encoder_digest(self) -> str | None:
        """Digest of the encoder that the model was trained with (`streaming.model.encoder.Encoder.digest`), from the
        model's configuration; None where export did not write one, as in the tutorial's own repository.

        Raises:
            ModelUnavailable: the server does not answer or has no such model.
        """
        config = self.settings()
        if "encoder_sha256" not in config.parameters:
            return None
        return str(config.parameters["encoder_sha256"].string_value)

    def settings(self) -> Any:
        """The model's configuration, as the server tells it (Triton's `ModelConfig`).

        Raises:
            ModelUnavailable: the server does not answer or has no such model.
        """
        try:
            return self._client.get_model_config(self.name, client_timeout=CONTROL_TIMEOUT_S).config
        except InferenceServerException as error:
            raise _translated(self.name, error) from error

    def submit(self, ids: npt.NDArray[np.int64]) -> Call:
        """Sends ids [n, fields]; returns before the answer is there.

        Raises:
            ArtifactMismatch: `ids` is not an int64 matrix.
        """
        if ids.ndim != 2 or ids.dtype != np.int64:
            raise ArtifactMismatch(f"ids must be int64 [n, fields], not {ids.dtype} {list(ids.shape)}")
        deadline = time.monotonic() + self.timeout_s
        parts = [
            (len(part), in_thread(functools.partial(self._infer, part, deadline)))
            for start in range(0, len(ids), self.batch_size_max)
            for part in [ids[start : start + self.batch_size_max]]
        ]
        return Call(self.name, parts, deadline)

    def score(self, ids: npt.NDArray[np.int64]) -> Scores:
        """`submit` and `result` in one."""
        return self.submit(ids).result()

    def prepare(self, fields: int) -> bool:
        """Does beforehand what the first call would start: whether the next one's ids go through shared memory."""
        return self._regions is not None and self._regions.prepare(self._bytes_max(fields))

    def close(self) -> None:
        """Closes the channel; calls under way fail as unavailable, after a moment in which they may still end."""
        if self._regions is not None:
            self._regions.close()
        self._client.close()

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _bytes_max(self, fields: int) -> int:
        return self.batch_size_max * fields * np.dtype(np.int64).itemsize

    def _infer(self, ids: npt.NDArray[np.int64], deadline: float) -> Any:
        """The server's answer.

        Raises:
            ModelUnavailable, ArtifactMismatch: see `Call.result`.
        """
        region = None
        if self._regions is not None and ids.size:
            region = self._regions.take(ids.nbytes, self._bytes_max(ids.shape[1]))
        if region is not None:
            answer = self._infer_in(region, ids, deadline)
            if answer is not None:
                return answer
        tensor = InferInput(INPUT, list(ids.shape), "INT64")
        tensor.set_data_from_numpy(ids)
        return self._ask(tensor, deadline)

    def _infer_in(self, region: Region, ids: npt.NDArray[np.int64], deadline: float) -> Any:
        """The same through shared memory; None: the server was started again and knows no such region."""
        assert self._regions is not None
        try:
            region.write(ids)
            tensor = InferInput(INPUT, list(ids.shape), "INT64")
            tensor.set_shared_memory(region.name, ids.nbytes)
            return self._ask(tensor, deadline)
        except (ModelUnavailable, ArtifactMismatch) as error:
            if region.name not in str(error):
                raise
            self._regions.forget(region)
            return None
        finally:
            self._regions.give(region)

    def _ask(self, tensor: InferInput, deadline: float) -> Any:
        # Blocking, in a thread of ours: gRPC would start one for each call that has a callback, and that takes a
        # millisecond when calls are rare.
        try:
            return self._client.infer(self.name, [tensor], client_timeout=max(0.001, deadline - time.monotonic()))
        except InferenceServerException as error:
            raise _translated(self.name, error) from error
        except ValueError as error:  # gRPC's for a closed channel
            raise ModelUnavailable(f"model {self.name}: {error}") from error


def _translated(model: str, error: InferenceServerException) -> ModelUnavailable | ArtifactMismatch:
    kind = ArtifactMismatch if error.status() in PERMANENT else ModelUnavailable
    return kind(f"model {model}: {error.message()} ({str(error.status()).removeprefix('StatusCode.')})")


def _checked(model: str, answer: Any, rows: int) -> npt.NDArray[np.float32]:
    output = answer.as_numpy(OUTPUT)
    if output is None:
        raise ArtifactMismatch(f"model {model} answers without {OUTPUT}")
    if output.dtype != np.float32 or output.shape != (rows, 1):
        raise ArtifactMismatch(f"model {model} answers {output.dtype} {list(output.shape)}, not float32 [{rows}, 1]")
    probabilities: npt.NDArray[np.float32] = output.reshape(-1)
    wrong = np.flatnonzero(~((probabilities >= 0) & (probabilities <= 1)))
    if len(wrong):
        raise ArtifactMismatch(
            f"model {model} version {answer.get_response().model_version} answers {probabilities[wrong[0]]} "
            f"in row {wrong[0]} of {rows}, not a probability"
        )
    return probabilities
