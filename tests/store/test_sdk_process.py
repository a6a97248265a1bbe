"""The process of OpenMLDB's client, by itself: its end."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import socket
import subprocess
import sys
import threading
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from fixtures.jd import actions_of, jd
from fixtures.scorer import Shop
from rigs.fake_openmldb import running_cluster

from streaming.config import OpenMLDB, Store
from streaming.store.openmldb.sdk import connect_options
from streaming.store.openmldb.sdk_process import send


@pytest.mark.parametrize("under_way", [False, True])
def test_it_ends_without_a_word_when_its_scorer_is_killed(under_way: bool, tmp_path: Path) -> None:
    settings = Store(kind="openmldb", openmldb=OpenMLDB(zk="zk:2181"))
    options = connect_options(settings, "JD_db", "rigs.fake_openmldb:cluster_sdk")
    rows = actions_of(Shop.seeded(2).actions).rows["bo_action"]
    mine, others = socket.socketpair()
    with running_cluster(tmp_path, jd()) as cluster, mine, others:
        argv = [sys.executable, "-m", "streaming.store.openmldb.sdk_process", str(others.fileno())]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        process = subprocess.Popen(argv, pass_fds=[others.fileno()], env=environment, stderr=subprocess.PIPE)
        others.close()
        with contextlib.closing(Connection(mine.detach())) as scorer:
            send(scorer, ("connect", (dataclasses.replace(options, connections=1),)))
            assert scorer.recv() == ("ok", None)
            cluster.faults.hung = held = threading.Event()
            if under_way:
                send(scorer, ("insert", ("bo_action", rows)))
        held.set()  # it answers, if at all, after its scorer's end
        _, told = process.communicate(timeout=30)
    assert (process.returncode, told) == (0, b"")
