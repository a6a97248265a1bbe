"""Compiled kernels: what they refuse, and that a process that serves does without their compiler."""

from __future__ import annotations

import ast
import subprocess
import sys
import threading
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from places import REPOSITORY

from streaming.engine import Engine
from streaming.engine.kernels import interpreter
from streaming.engine.native import kernel as native
from streaming.engine.native.kernel import ARRAYS, INNER, PARTS, SOURCES, Kernel
from streaming.engine.program import runner
from streaming.engine.storage import strings
from streaming.engine.storage.index_keys import refill

MARKS = {"inner", "kernel", "long_kernel"}


def slots() -> tuple[native.Int64, native.Int64]:
    return np.full(8, -1, np.int64), np.array([7, 0, 9, 0], np.int64)


def test_a_kernel_works_on_the_arrays_it_is_given() -> None:
    empty, keys = slots()
    refill(empty, keys, 2, 2)
    assert sorted(empty) == [-1] * 6 + [0, 1]


@pytest.mark.parametrize(
    "wrong",
    [
        np.full(8, -1.0),
        np.full(8, -1, np.int32),
        np.full((8, 1), -1, np.int64),
        np.full(16, -1, np.int64)[::2],
        [-1] * 8,
        None,
        -1,
    ],
    ids=["floats", "int32", "two dimensions", "gaps", "a list", "None", "a number"],
)
def test_another_array_is_refused(wrong: object) -> None:
    _, keys = slots()
    with pytest.raises(TypeError, match="refill: an array of another kind"):
        refill(wrong, keys, 2, 2)
    assert keys.tolist() == [7, 0, 9, 0]


def test_a_number_that_is_none_is_refused() -> None:
    empty, keys = slots()
    with pytest.raises(TypeError, match="integer"):
        refill(empty, keys, "2", 2)
    with pytest.raises(OverflowError):
        refill(empty, keys, 2, 1 << 63)
    with pytest.raises(TypeError, match="too few"):
        refill(empty, keys, 2)
    assert (empty == -1).all()


def test_every_kernel_says_what_it_takes() -> None:
    kernels = [
        value
        for modules in PARTS.values()
        for module in modules
        for value in vars(__import__(f"streaming.engine.{module}", fromlist=["_"])).values()
        if isinstance(value, Kernel)
    ]
    assert strings._truncate in kernels
    for kernel in kernels:
        assert set(kernel.annotations.values()) <= {*ARRAYS, "int"}
        assert kernel.function.__annotations__["return"] in {"int", "None"}


def test_changed_sources_are_compiled_anew() -> None:
    """The digest of the object code is over every module of the engine that kernels call or take a number from."""
    needed = set()
    for name in {*INNER, *(module for modules in PARTS.values() for module in modules)}:
        needed.add(name)
        tree = ast.parse((REPOSITORY / "streaming" / "engine" / f"{name.replace('.', '/')}.py").read_text())
        functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
        compiled = [f for f in functions if {d.id for d in f.decorator_list if isinstance(d, ast.Name)} & MARKS]
        used = {node.id for function in compiled for node in ast.walk(function) if isinstance(node, ast.Name)}
        for node in tree.body:
            if isinstance(node, ast.ImportFrom) and {alias.name for alias in node.names} & used:
                needed.add(str(node.module).removeprefix("streaming.engine."))
    assert {"types", "kernels.instructions", "storage.strings"} <= needed
    assert {module for module in needed if "." in module or module == "types"} <= set(SOURCES)


def test_a_process_that_answers_imports_no_compiler() -> None:
    script = (
        "import sys; from streaming.engine import Engine; engine = Engine();"
        "engine.execute('create table t(k string, ts timestamp, index(key=k, ts=ts)); deploy d select k from t');"
        "assert engine.request('d', [{'k': 'a', 'ts': 1}]).num_rows == 1; assert 'llvmlite' in sys.modules;"
        "print('numba' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_other_threads_run_while_a_program_does(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine()
    engine.execute("CREATE DATABASE db; USE db; CREATE TABLE t (k string, v bigint, ts timestamp);")
    window = "WINDOW w AS (PARTITION BY k ORDER BY ts ROWS_RANGE BETWEEN 9d PRECEDING AND CURRENT ROW)"
    engine.execute(f"DEPLOY d SELECT sum(v) OVER w AS s FROM t {window};")
    count = 200_000  # a request takes two milliseconds
    times = pa.array(np.arange(count), pa.timestamp("ms"))
    rows = pa.table({"k": ["a"] * count, "v": np.arange(count), "ts": times})
    engine.insert("t", rows)
    engine.request("db.d", rows.slice(0, 1))  # the kernels are loaded
    begun, ran = threading.Semaphore(0), threading.Event()

    def wait() -> None:
        while True:
            begun.acquire()
            ran.set()

    threading.Thread(target=wait, daemon=True).start()
    seen = []
    run = interpreter.run

    def watched(*arguments: Any) -> int:
        ran.clear()
        begun.release()
        outcome = run(*arguments)
        seen.append(ran.is_set())
        return outcome

    monkeypatch.setattr(runner, "run", watched)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1000)  # nobody takes the lock from a thread that does not give it away
    try:
        engine.request("db.d", rows.slice(count - 100))  # each holds its window: half a gigabyte
    finally:
        sys.setswitchinterval(interval)
    assert seen[-1]  # the last call does the work; those before find that there is no room yet
