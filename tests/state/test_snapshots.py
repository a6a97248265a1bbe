"""Snapshots: what is written comes back; damaged, foreign or too new ones are set aside; a full disk costs nothing."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from fixtures.jd import actions_of, jd
from fixtures.scorer import Shop, loaded_store

from streaming.config import Config
from streaming.errors import ConfigError, FolderTaken
from streaming.events.batch import EventBatch
from streaming.kafka.lineage import Lineages
from streaming.loop.poison.detection import open_poison
from streaming.ops.metrics import Metrics
from streaming.state.snapshot_folder import SnapshotFolder, Writing
from streaming.state.snapshots import Snapshots, Standing, load_state
from streaming.store.embedded import EmbeddedStore

IDENTITY = {"Kafka cluster": "c", "topic actions": "t"}
WAIT_S = 60.0


def config(folder: Path, **keys: Any) -> Config:
    return Config(kafka={"instance_id": "one"}, snapshots={"folder": str(folder), "every_s": 0.001, **keys})


def empty_store() -> EmbeddedStore:
    store = EmbeddedStore(jd())
    store.define()
    return store


def standing(store: EmbeddedStore, offset: int) -> Standing:
    return Standing(store.mark(), {("actions", 0): offset}, {("users", 0): 3}, {("actions", 0): 7})


def take(snapshots: Snapshots, moment: Standing, meanwhile: Callable[[], None] = lambda: None) -> None:
    """Goes round as the loop does until the snapshot has ended, well or not."""
    deadline = time.monotonic() + WAIT_S
    while snapshots._taking is None:
        snapshots.turn(moment)
        assert time.monotonic() < deadline
    while snapshots._taking is not None:
        meanwhile()
        snapshots.turn(moment)
        assert time.monotonic() < deadline


def actions(shop: Shop, first: int, last: int) -> EventBatch:
    return actions_of(shop.actions[first:last])


@pytest.fixture
def filled(shop: Shop, tmp_path: Path) -> tuple[EmbeddedStore, Path]:
    """A store with 400 actions, and a folder with a snapshot of 300 and one of 400 of them."""
    store = loaded_store()
    snapshots = Snapshots(config(tmp_path), store, IDENTITY, Metrics())
    for first, last in ((0, 300), (300, 400)):
        store.restore(actions(shop, first, last))
        take(snapshots, standing(store, last))
    snapshots.close()
    return store, tmp_path


def restored(folder: Path, identity: dict[str, str] = IDENTITY) -> tuple[EmbeddedStore, Standing | None]:
    store = empty_store()
    snapshots = Snapshots(config(folder), store, identity, Metrics())
    found = snapshots.restore()
    snapshots.close()
    return store, found


def rows(store: EmbeddedStore) -> int:
    return sum(stats.rows for stats in store._engine.stats().values())


def same(one: EmbeddedStore, other: EmbeddedStore, shop: Shop) -> bool:
    asked = actions(shop, 400, 500).rows[jd().main]
    return bool(one.request(asked).equals(other.request(asked)))


def test_a_restored_store_answers_as_the_one_that_was_written(filled: tuple[EmbeddedStore, Path], shop: Shop) -> None:
    store, folder = filled
    copy, found = restored(folder)
    assert found is not None
    assert (found.actions, found.dimensions, found.newest) == (
        {("actions", 0): 400},
        {("users", 0): 3},
        {("actions", 0): 7},
    )
    assert same(store, copy, shop)
    copy.restore(actions(shop, 400, 500))
    store.restore(actions(shop, 400, 500))
    assert same(store, copy, shop)
    copy.reset()  # history only, and there is none
    assert rows(copy) == 0


def test_rows_that_come_while_it_is_written_are_not_in_it(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streaming.engine.storage.snapshot.SLICE", 16)  # many turns
    monkeypatch.setattr("streaming.state.snapshots.TURN_S", 0.0005)
    store = loaded_store()
    store.restore(actions(shop, 0, 400))
    truth = empty_store()
    truth.restore(actions(shop, 0, 400))
    metrics = Metrics()
    snapshots = Snapshots(config(tmp_path), store, IDENTITY, metrics)
    uncommitted = iter(range(10_000))

    def come_and_go() -> None:
        mark = store.mark()
        n = next(uncommitted) % 80
        store.restore(actions(shop, 400 + 5 * n, 405 + 5 * n))
        if n % 2:
            store.rollback(mark)

    take(snapshots, standing(store, 400), come_and_go)
    assert next(uncommitted) > 3  # it did take turns
    assert metrics.snapshot_pause._value.get() < metrics.snapshot_seconds._value.get()
    snapshots.close()
    copy, found = restored(tmp_path)
    assert found is not None
    assert same(truth, copy, shop)


def test_some_are_kept_and_none_is_made_twice(filled: tuple[EmbeddedStore, Path]) -> None:
    store, folder = filled
    snapshots = Snapshots(config(folder), store, IDENTITY, Metrics())
    for offset in (401, 402, 403):
        moment = standing(store, offset)
        take(snapshots, moment)
    assert snapshots.folder.names() == ["snapshot-000005", "snapshot-000004"]
    time.sleep(0.01)
    snapshots.turn(moment)  # nothing was committed since
    assert snapshots._taking is None
    snapshots.close()
    assert sorted(os.listdir(folder / "one")) == ["lock", "snapshot-000004", "snapshot-000005"]


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def later(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "format": 99}))


def change_offset(folder: Path) -> None:
    file = folder / "manifest.json"
    file.write_text(file.read_text().replace("400", "399"))


DAMAGES: dict[str, tuple[Callable[[Path], Any], str, str]] = {
    "a flipped bit": (lambda folder: flip(folder / "JD_db.bo_action.arrow"), "damaged", "JD_db.bo_action.arrow has"),
    "a cut file": (lambda folder: cut(folder / "strings.arrow"), "damaged", "strings.arrow has"),
    "a lost file": (lambda folder: (folder / "strings.arrow").unlink(), "damaged", "strings.arrow cannot be read"),
    "a changed offset": (change_offset, "damaged", "manifest.json has another checksum"),
    "no JSON": (lambda folder: (folder / "manifest.json").write_text("{"), "damaged", "manifest.json: "),
    "no manifest": (lambda folder: (folder / "manifest.json").unlink(), "damaged", "manifest.json cannot be read"),
    "a later format": (later, "future", "its format is 99, this program knows 1"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_bad_snapshot_is_named_and_set_aside_and_the_older_is_used(
    damage: str, filled: tuple[EmbeddedStore, Path], shop: Shop, capfd: pytest.CaptureFixture[str]
) -> None:
    _, folder = filled
    harm, kind, why = DAMAGES[damage]
    harm(folder / "one" / "snapshot-000002")
    capfd.readouterr()
    store, found = restored(folder)
    assert found is not None
    assert found.actions == {("actions", 0): 300}
    told = "".join(capfd.readouterr())
    assert f"{folder}/one/snapshot-000002" in told
    assert why in told
    assert sorted(os.listdir(folder / "one")) == sorted(["lock", "snapshot-000001", f"{kind}-000002"])
    truth = empty_store()
    truth.restore(actions(shop, 0, 300))
    assert same(truth, store, shop)


def test_snapshots_of_other_topics_scripts_or_history_are_foreign(
    filled: tuple[EmbeddedStore, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    _, folder = filled
    capfd.readouterr()
    store, found = restored(folder, {**IDENTITY, "topic actions": "made anew", "store.history": "other"})
    assert found is None
    assert rows(store) == 0
    assert "it was made with another store.history, another topic actions" in "".join(capfd.readouterr())
    assert sorted(os.listdir(folder / "one")) == ["foreign-000001", "foreign-000002", "lock"]


def test_what_is_set_aside_does_not_pile_up(filled: tuple[EmbeddedStore, Path]) -> None:
    store, folder = filled
    for round_ in range(3):
        restored(folder, {"of round": str(round_)})
        snapshots = Snapshots(config(folder), store, {"of round": "last"}, Metrics())
        take(snapshots, standing(store, 400 + round_))
        snapshots.close()
    names = [name for name in os.listdir(folder / "one") if name.startswith("foreign")]
    assert sorted(names) == ["foreign-000003", "foreign-000004"]


def test_a_killed_writing_is_not_a_snapshot(filled: tuple[EmbeddedStore, Path]) -> None:
    _, folder = filled
    (folder / "one" / "snapshot-000002").rename(folder / "one" / ".writing")  # all but the rename was done
    _, found = restored(folder)
    assert found is not None
    assert found.actions == {("actions", 0): 300}
    assert not (folder / "one" / ".writing").exists()


def hold(folder: Path, ready: Any, leave: Any) -> None:
    held = SnapshotFolder(folder, 2)
    ready.set()
    leave.wait()
    held.close()


def test_two_processes_cannot_have_one_folder(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    ready, leave = spawn.Event(), spawn.Event()
    holder = spawn.Process(target=hold, args=(tmp_path, ready, leave))
    holder.start()
    try:
        assert ready.wait(WAIT_S)
        with pytest.raises(FolderTaken, match=f"{tmp_path} is in use by pid {holder.pid} on "):
            SnapshotFolder(tmp_path, 2)
    finally:
        holder.kill()
        holder.join(WAIT_S)
    SnapshotFolder(tmp_path, 2).close()  # a lock does not outlive its process


@pytest.mark.parametrize("where", ["in a file", "at the rename"])
def test_a_full_disk_costs_the_snapshot_only(
    where: str, filled: tuple[EmbeddedStore, Path], shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, folder = filled
    metrics = Metrics()
    snapshots = Snapshots(config(folder), store, IDENTITY, metrics)

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        if where == "in a file":
            patch.setattr(Writing, "_place", lambda *_: Path("/dev/full"))
        else:
            patch.setattr(SnapshotFolder, "publish", full)
        take(snapshots, standing(store, 401))
    assert metrics.snapshot_failures._value.get() == 1
    assert store._engine.captures == 0
    assert sorted(os.listdir(folder / "one")) == ["lock", "snapshot-000001", "snapshot-000002"]
    take(snapshots, standing(store, 402))  # there is room again
    assert snapshots.folder.names() == ["snapshot-000003", "snapshot-000002"]
    snapshots.close()
    copy, found = restored(folder)
    assert found is not None
    assert found.actions == {("actions", 0): 402}
    assert same(store, copy, shop)


def full_disk(path: object, *_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def test_on_a_disk_that_is_full_at_the_start_the_flow_goes_on_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("streaming.state.snapshots.identity", lambda *_: IDENTITY)
    metrics, lineages = Metrics(), cast(Lineages, None)
    settings = config(tmp_path / "new")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", full_disk)
        assert load_state(settings, jd(), EmbeddedStore(jd()), lineages, metrics) == (None, None)
        assert not open_poison(settings, ()).has_suspects
    assert capsys.readouterr().out.count("the disk is full") == 2
    assert metrics.snapshot_failures._value.get() == 1
    with pytest.raises(ConfigError, match=r"snapshots\.folder: /proc/nowhere"):  # a wrong folder is no full disk
        load_state(config(Path("/proc/nowhere")), jd(), EmbeddedStore(jd()), lineages, metrics)


def test_what_a_full_disk_holds_is_restored(filled: tuple[EmbeddedStore, Path], shop: Shop) -> None:
    store, folder = filled
    lock = folder / "one" / "lock"
    lock.unlink()
    lock.symlink_to("/dev/full")  # it can be locked, and not written
    copy, found = restored(folder)
    assert found is not None
    assert same(store, copy, shop)


def test_one_that_is_given_up_leaves_nothing(filled: tuple[EmbeddedStore, Path]) -> None:
    store, folder = filled
    snapshots = Snapshots(config(folder), store, IDENTITY, Metrics())
    moment = standing(store, 401)
    while snapshots._taking is None:
        snapshots.turn(moment)
    snapshots.abandon()
    assert store._engine.captures == 0
    snapshots.close()
    assert sorted(os.listdir(folder / "one")) == ["lock", "snapshot-000001", "snapshot-000002"]
