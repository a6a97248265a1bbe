"""Compiled kernels: what they refuse, and that a process that serves does without their compiler."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from places import REPOSITORY

from streaming.engine.native import kernel as native
from streaming.engine.native.kernel import ARRAYS, PARTS, Kernel
from streaming.engine.storage import strings
from streaming.engine.storage.index_keys import refill


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


def test_a_process_that_answers_imports_no_compiler() -> None:
    script = (
        "import sys; from streaming.engine import Engine; engine = Engine();"
        "engine.execute('create table t(k string, ts timestamp, index(key=k, ts=ts)); deploy d select k from t');"
        "assert engine.request('d', [{'k': 'a', 'ts': 1}]).num_rows == 1; assert 'llvmlite' in sys.modules;"
        "print('numba' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
