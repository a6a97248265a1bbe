"""Checks of `streaming.doctor.command`: SQL, encoder, model, history, folders, port."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tritonclient.grpc import model_config_pb2

from streaming.app.folder import App
from streaming.app.history import history_tables
from streaming.config import Config
from streaming.doctor.findings import Finding, ok, warning, wrong
from streaming.errors import ArtifactMismatch, ModelUnavailable, ScorerError, StoreUnavailable
from streaming.files.tables import BadFile, check_columns
from streaming.model.artifact import check_sql
from streaming.model.encoder import Encoder
from streaming.model.served_encoder import refuse_other_encoder
from streaming.model.triton import INPUT, OUTPUT, Model
from streaming.store.embedded import EmbeddedStore
from streaming.store.open import open_store

__all__ = [
    "check_encoder",
    "check_folders",
    "check_history",
    "check_model",
    "check_port",
    "check_query",
    "check_store",
    "unfit",
]

FREE_BYTES = 1 << 30  # a folder with less is nearly full


def check_store(config: Config, app: App) -> Iterator[Finding]:
    """The scripts run, or the cluster has what they make; the encoder finds its columns."""
    settings = config.store
    store = open_store(settings, app, dedup=config.dedup)
    with contextlib.closing(store):
        if isinstance(store, EmbeddedStore):
            store.define()
            yield ok("SQL", f"{app.folder} runs on the embedded engine and deploys {app.settings.deployment.name!r}")
        else:
            try:
                store.load()
            except StoreUnavailable as error:
                yield wrong("SQL", str(error), f"start the cluster, or set [store.{settings.kind.rpartition('-')[2]}]")
            else:
                made = f"{app.tables.database}.{app.settings.deployment.name}"
                yield ok("SQL", f"the cluster has {made} as {app.folder} makes it")
        columns = store.schema()
    encoder = _encoder(config)
    encoder.encode(columns.empty_table())
    yield ok("SQL and encoder", f"the query has the columns of all {len(encoder.fields)} fields")


def check_query(config: Config, app: App) -> Iterator[Finding]:
    """The deployed query is the one that the model was trained on."""
    check_sql(app, Path(config.model.artifact))
    yield ok("SQL and model", f"{config.model.artifact} was trained on this query")


def _encoder(config: Config) -> Encoder:
    return Encoder.load(Path(config.model.artifact) / "encoder")


def check_encoder(config: Config) -> Iterator[Finding]:
    """The artifact's encoder can be read and is whole."""
    encoder = _encoder(config)
    yield ok("encoder", f"{config.model.artifact}: {len(encoder.fields)} fields, {encoder.digest}")


def check_model(config: Config) -> Iterator[Finding]:
    """Tensors, encoder, and an answer: a server whose model process has died still says that it is ready."""
    settings = config.model
    about = f"model {settings.name!r}"
    with Model(settings.url, settings.name, settings.timeout_s) as model:
        try:
            found = model.settings()
        except ModelUnavailable as error:
            start = f"start it with {settings.artifact}/triton, or set model.url and model.name"
            yield wrong(about, f"Triton at {settings.url} does not serve it: {error}", start)
            return
        wrongs = list(unfit(found, config))
        yield from wrongs
        if not wrongs:
            width = found.input[0].dims[0]
            started = time.monotonic()
            version = model.score(np.zeros((1, width), np.int64)).version
            took_ms = (time.monotonic() - started) * 1000
            shape = f"{INPUT} INT64 [{width}] → {OUTPUT} FP32 [1]"
            yield ok(about, f"version {version} at {settings.url}, {shape}, answers in {took_ms:.0f} ms")


def unfit(found: Any, config: Config) -> Iterator[Finding]:
    """What of the served model does not belong to this configuration.

    Args:
        found: Triton's `ModelConfig`.
    """
    about = f"model {config.model.name!r}"
    export = "serve what `jd-intent-batch export` wrote"
    for tensors, name, kind in ((found.input, INPUT, "TYPE_INT64"), (found.output, OUTPUT, "TYPE_FP32")):
        told = [f"{t.name} {model_config_pb2.DataType.Name(t.data_type)} {list(t.dims)}" for t in tensors]
        if len(told) != 1 or not told[0].startswith(f"{name} {kind} [") or len(tensors[0].dims) != 1:
            yield wrong(about, f"it has {', '.join(told) or 'nothing'} in the place of {name} {kind} [n]", export)
            return
    if found.max_batch_size < config.batch.messages_max:
        yield wrong(
            about,
            f"max_batch_size is {found.max_batch_size}, batch.messages_max {config.batch.messages_max}",
            "set batch.messages_max to at most that",
        )
    told_digest = found.parameters["encoder_sha256"].string_value if "encoder_sha256" in found.parameters else "none"
    with contextlib.suppress(ScorerError):  # told by its own check
        encoder = _encoder(config)
        try:
            refuse_other_encoder(told_digest, encoder.digest, "it", f"{config.model.artifact} has")
        except ArtifactMismatch as error:
            fix = f"serve {config.model.artifact}/triton, or set model.artifact to what is served"
            yield wrong(about, str(error), fix)
            return
        if list(found.input[0].dims) != [len(encoder.fields)]:
            dims = list(found.input[0].dims)
            yield wrong(about, f"{INPUT} is {dims}, the encoder makes {len(encoder.fields)} ids", export)


def check_history(config: Config, app: App) -> Iterator[Finding]:
    """The files that a start loads can be opened and have their tables' columns; their values are seen by the start."""
    if not config.store.history:
        yield ok("history", "store.history is not set: the state is what the topics hold")
        return
    folder = Path(config.store.history)
    if not folder.is_dir():
        yield wrong("history", f"store.history: {folder} is not a folder", "set it to a folder, or to ''")
        return
    try:
        sources = history_tables(app, folder, partial=True)
        found = {s.table: check_columns(s.path, s.schema, s.options) for s in sources}
    except BadFile as error:
        yield wrong("history", str(error), "mend or copy it anew; hidden files and folders of no table are passed over")
        return
    if not found:
        why = f"store.history: {folder} has none of the tables {', '.join(app.tables.columns)}"
        yield wrong("history", why, "put a folder of files for each there, or set it to ''")
    else:
        tables = ", ".join(f"{table} {len(files):,}" for table, files in found.items())
        yield ok("history", f"files below {folder}, by table: {tables}")


def check_folders(config: Config) -> Iterator[Finding]:
    """Those of snapshots and of the journal of deaths: writable, with room, used by one process."""
    roots = {"snapshots.folder": config.snapshots.folder, "poison.folder": config.poison.folder}
    if config.store.kind == "embedded" and not config.snapshots.folder:
        yield warning(
            "snapshots.folder", "not set: every start reads the topics from their beginning", "set it, on a volume"
        )
    if config.poison.tries_max and not any(roots.values()) and not config.workers.count:
        yield warning(
            "poison.folder",
            "neither it nor snapshots.folder is set: a message that kills the process kills it again after each start",
            "set one, on a volume, or run with --workers",
        )
    name, count = config.kafka.instance, config.workers.count
    instances = [f"{name}-{number}" for number in range(count)] if count else [name]
    for key, root in roots.items():
        if root:
            yield from _folder(key, Path(root), instances)


def _folder(key: str, root: Path, instances: Sequence[str]) -> Iterator[Finding]:
    there = next(folder for folder in (root, *root.resolve().parents) if folder.exists())
    if not there.is_dir():
        yield wrong(key, f"{there} is not a folder", f"set {key} to a folder")
        return
    folders = [root / instance for instance in instances]
    shut = [str(folder) for folder in (there, *folders) if folder.exists() and not os.access(folder, os.W_OK | os.X_OK)]
    if shut:
        yield wrong(key, f"{', '.join(shut)} may not be written by this user", f"chown -R {os.geteuid()} {shut[0]}")
    free = shutil.disk_usage(there).free
    newest = max((_size(path) for folder in folders for path in folder.glob("snapshot-*")), default=0)
    room = f"{free / 2**20:,.0f} MiB free"
    if free < max(FREE_BYTES, 3 * newest):
        yield warning(key, f"{there}: {room}; a snapshot there takes {newest / 2**20:,.0f} MiB", "make room")
    elif not shut:
        yield ok(key, f"{root}: {room}{'' if root.exists() else '; it will be made'}")
    for folder in folders:
        if holder := _holder(folder):
            yield warning(key, f"{folder} is in use by {holder}: right where that is this scorer, running")


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir() if file.is_file())


def _holder(folder: Path) -> str:
    """Who has a lock in the folder; "": nobody, as far as the kernel tells. Nothing is locked to find it out."""
    try:
        held = {line.split()[5].rpartition(":")[2] for line in Path("/proc/locks").read_text().splitlines()}
    except (OSError, IndexError):
        return ""
    for name in ("lock", "in-hand"):
        with contextlib.suppress(OSError):
            if str((folder / name).stat().st_ino) in held:
                told = (folder / name).read_text(encoding="utf-8") if name == "lock" else ""
                return told or "another process"
    return ""


def check_port(config: Config) -> Iterator[Finding]:
    """That of /healthz, /readyz and /metrics."""
    host, port = config.http.host, config.http.port
    about = f"http port {port}"
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, proto) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        yield warning(about, f"{host}: {error.strerror or error}: right where that is this scorer, running")
    else:
        yield ok(about, f"free on {host}")
