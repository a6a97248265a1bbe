"""Compiles the kernels of one part into an object file: `python -m streaming.engine.native.object_code PART FILE`.

numba infers the types and makes LLVM's intermediate code; all kernels of the part go into one module, which LLVM
optimizes once. (Compiled one by one, as numba does it, an inner function is optimized again in each of its callers.)
"""

# mypy: disable-error-code="no-untyped-call"
from __future__ import annotations

import gc
import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import llvmlite.binding as llvm  # type: ignore[import-untyped]
import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils, compiler_machinery, transforms
from numba.core import ir as ir_of_numba
from numba.core.codegen import JITCodeLibrary, JITCPUCodegen
from numba.extending import intrinsic
from numba.np.arrayobj import make_array, populate_array

from streaming.engine.native import memory
from streaming.engine.native.kernel import ARRAYS, INNER, PARTS, UNFIT, Kernel, symbol

__all__ = ["compile_part"]

_WORD = ir.IntType(64)


def _loader(kind: Any, result: Any) -> Any:
    """A kernel function `address -> number`; the address need not be aligned."""

    def load(typingctx: Any, at: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            value = builder.load(builder.inttoptr(args[0], ir.PointerType(kind)), align=1)
            if isinstance(kind, ir.FloatType):
                return builder.fpext(value, ir.DoubleType())
            if isinstance(kind, ir.IntType) and kind.width < 64:
                return builder.sext(value, _WORD)
            return value

        return result(types.int64), codegen

    return intrinsic(load)


def _storer(kind: Any, given: Any) -> Any:
    """A kernel function `address, number -> nothing`."""

    def store(typingctx: Any, at: Any, value: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            value = args[1]
            if isinstance(kind, ir.FloatType):
                value = builder.fptrunc(value, kind)
            elif isinstance(kind, ir.IntType) and kind.width < 64:
                value = builder.trunc(value, kind)
            builder.store(value, builder.inttoptr(args[0], ir.PointerType(kind)), align=1)
            return context.get_dummy_value()

        return types.void(types.int64, given), codegen

    return intrinsic(store)


def _array(context: Any, builder: Any, kind: Any, at: Any, lengths: list[Any]) -> Any:
    """The array of `kind` at an address."""
    array = make_array(kind)(context, builder)
    element = context.get_data_type(kind.dtype)
    width = context.get_abi_sizeof(element)
    strides = [context.get_constant(types.intp, width)]
    for length in reversed(lengths[1:]):
        strides.insert(0, builder.mul(strides[0], length))
    populate_array(array, builder.inttoptr(at, element.as_pointer()), lengths, strides, width, None)
    return array._getvalue()


def _array_at(kind: Any) -> Any:
    """A kernel function `address, lengths -> array`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _array(context, builder, kind, args[0], list(args[1:]))

    word = types.int64
    if kind.ndim == 1:
        return intrinsic(lambda typingctx, at, n: (kind(word, word), codegen))
    return intrinsic(lambda typingctx, at, n, m: (kind(word, word, word), codegen))


def _field(builder: Any, at: Any, offset: int, kind: Any = _WORD) -> Any:
    """The number at an address and some bytes."""
    return builder.load(builder.inttoptr(builder.add(at, ir.Constant(_WORD, offset)), ir.PointerType(kind)))


# PyArrayObject_fields, which numpy has kept as they are since its beginnings; the lowest flag: row by row, without gaps
_TYPE, _DATA, _DIMENSIONS, _LENGTHS, _ELEMENT, _FLAGS = 8, 16, 24, 32, 56, 64
_NUMBER = 28  # of the type, in PyArray_Descr


def _array_of(kind: Any) -> Any:
    """A kernel function `address of a numpy array -> array`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        lengths = _field(builder, args[0], _LENGTHS)
        shape = [_field(builder, lengths, 8 * n) for n in range(kind.ndim)]
        return _array(context, builder, kind, _field(builder, args[0], _DATA), shape)

    return intrinsic(lambda typingctx, at: (kind(types.int64), codegen))


def _fits(kind: Any) -> Any:
    """A kernel function `address of an object, address of numpy's type of arrays -> whether it is such an array`."""
    number = np.dtype(kind.dtype.name).num

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        small = ir.IntType(32)
        result = cgutils.alloca_once_value(builder, cgutils.false_bit)
        with builder.if_then(builder.icmp_signed("==", _field(builder, args[0], _TYPE), args[1])):
            flag = builder.and_(_field(builder, args[0], _FLAGS, small), small(1))
            dimensions = _field(builder, args[0], _DIMENSIONS, small)
            element = _field(builder, _field(builder, args[0], _ELEMENT), _NUMBER, small)
            tests = [
                builder.icmp_signed("==", found, small(wanted))
                for found, wanted in ((flag, 1), (dimensions, kind.ndim), (element, number))
            ]
            builder.store(builder.and_(tests[0], builder.and_(tests[1], tests[2])), result)
        return builder.load(result)

    return intrinsic(lambda typingctx, at, ndarray: (types.boolean(types.int64, types.int64), codegen))


# PyTupleObject
_COUNT, _ITEMS = 16, 24


@intrinsic
def _number(typingctx: Any, at: Any) -> Any:
    """The int64 of the Python object at an address; -1, and an exception is set, where it is none."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(_WORD, [_WORD])
        return builder.call(cgutils.get_or_insert_function(builder.module, kind, "PyLong_AsLongLong"), args)

    return types.int64(types.int64), codegen


@intrinsic
def _raised(typingctx: Any) -> Any:
    """Whether an exception is set."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(_WORD, []), "PyErr_Occurred")
        return builder.icmp_signed("!=", builder.call(function, []), _WORD(0))

    return types.boolean(), codegen


@intrinsic
def _unlock(typingctx: Any) -> Any:
    """Gives Python's lock away; answers what `_lock` needs."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(_WORD, []), "PyEval_SaveThread")
        return builder.call(function, [])

    return types.int64(), codegen


@intrinsic
def _lock(typingctx: Any, thread: Any) -> Any:
    """Waits for Python's lock."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [_WORD])
        builder.call(cgutils.get_or_insert_function(builder.module, kind, "PyEval_RestoreThread"), args)
        return context.get_dummy_value()

    return types.void(types.int64), codegen


@intrinsic
def _address(typingctx: Any, array: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = make_array(signature.args[0])(context, builder, args[0]).data
        return builder.ptrtoint(data, _WORD)

    return types.int64(array), codegen


@intrinsic
def _word(typingctx: Any, value: Any) -> Any:
    return types.int64(types.int64), lambda context, builder, signature, args: args[0]


@intrinsic
def _copy(typingctx: Any, to: Any, at: Any, n: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        byte = ir.PointerType(ir.IntType(8))
        to, at = (builder.inttoptr(value, byte) for value in args[:2])
        cgutils.raw_memcpy(builder, to, at, args[2], 1)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), codegen


_KINDS = {name: types.Array(numba.from_dtype(np.dtype(element)), n, "C") for name, (element, n) in ARRAYS.items()}
_LOAD64 = _loader(_WORD, types.int64)
_INTRINSICS: dict[Callable[..., Any], Any] = {
    memory.load8: _loader(ir.IntType(8), types.int64),
    memory.load16: _loader(ir.IntType(16), types.int64),
    memory.load32: _loader(ir.IntType(32), types.int64),
    memory.load64: _LOAD64,
    memory.load_float32: _loader(ir.FloatType(), types.float64),
    memory.load_float64: _loader(ir.DoubleType(), types.float64),
    memory.store16: _storer(ir.IntType(16), types.int64),
    memory.store32: _storer(ir.IntType(32), types.int64),
    memory.store64: _storer(_WORD, types.int64),
    memory.store_float32: _storer(ir.FloatType(), types.float64),
    memory.store_float64: _storer(ir.DoubleType(), types.float64),
    memory.copy: _copy,
    memory.word: _word,
    memory.address: _address,
    memory.int64s_at: _array_at(_KINDS["Int64"]),
    memory.rows_at: _array_at(_KINDS["Matrix"]),
    memory.bytes_at: _array_at(_KINDS["Bytes"]),
    memory.floats_at: _array_at(_KINDS["Float64"]),
}

_UNPACK = {name: (_array_of(kind), _fits(kind)) for name, kind in _KINDS.items()}

# A division by 0 is tested for where it may happen. Kernels own no memory: arrays are views, nothing is counted.
_OPTIONS: dict[str, Any] = {"error_model": "numpy", "_nrt": False}


_INNER = {**_OPTIONS, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}


def _entry(kernel: Kernel) -> Callable[..., Any]:
    """The function that unpacks the arguments of a kernel from the tuple at an address."""
    arrays = {name: kind for name, kind in kernel.annotations.items() if kind in ARRAYS}
    numbers = [name for name in kernel.annotations if name not in arrays]
    tests = " and ".join(f"fits_{kind}({name}, ndarray)" for name, kind in arrays.items())
    values = [f"{kind}({name})" if name in arrays else name for name, kind in kernel.annotations.items()]
    call = f"target({', '.join(values)})"
    returns = kernel.function.__annotations__["return"] == "int"
    lines = [
        "def entry(ndarray, arguments):",
        f"    if load64(arguments + {_COUNT}) != {len(kernel.annotations)}:",
        f"        return {UNFIT}",
        *(f"    {name} = load64(arguments + {_ITEMS + 8 * n})" for n, name in enumerate(kernel.annotations)),
        f"    if not ({tests}):",
        f"        return {UNFIT}",
    ]
    for name in numbers:
        lines += [f"    {name} = number({name})", f"    if {name} == -1 and raised():", "        return 0"]
    if kernel.unlocked:
        lines.append("    thread = unlock()")
    lines.append(f"    result = {call}" if returns else f"    {call}")
    if kernel.unlocked:
        lines.append("    lock(thread)")
    lines.append("    return result" if returns else "    return 0")
    scope: dict[str, Any] = {
        "target": numba.njit(**_INNER)(kernel.function),
        "load64": _LOAD64,
        "number": _number,
        "raised": _raised,
        "unlock": _unlock,
        "lock": _lock,
    }
    for kind in set(arrays.values()):
        scope[kind], scope[f"fits_{kind}"] = _UNPACK[kind]
    exec(compile("\n".join(lines), symbol(kernel.function), "exec"), scope)
    function: Callable[..., Any] = scope["entry"]
    return function


def _wrapper(name: str, target: str, count: int) -> str:
    """A function with C's calling convention around one with numba's, which returns a status that is always 0 here."""
    words = ", ".join(f"i64 %a{n}" for n in range(count))
    return f"""
        declare i32 @"{target}"(ptr, ptr, {", ".join(["i64"] * count)})
        define i64 @{name}({words}) {{
            %result = alloca i64
            %error = alloca ptr
            %status = call i32 @"{target}"(ptr %result, ptr %error, {words})
            %value = load i64, ptr %result
            ret i64 %value
        }}"""


def _link(modules: list[ModuleType]) -> None:
    """Puts compiled functions in the place of the marked ones, wherever a module of the engine names them."""
    made: dict[int, Any] = {id(function): replacement for function, replacement in _INTRINSICS.items()}
    for module in modules:
        for name, value in list(vars(module).items()):
            if getattr(value, "__kernel__", False) and id(value) not in made:
                made[id(value)] = numba.njit(**_INNER)(value)
            if isinstance(value, Kernel):
                made.setdefault(id(value), value)
            if id(value) in made:
                setattr(module, name, made[id(value)])


# what a kernel may call, of C's library and of Python's
_LIBRARY = {"fmod", "memcpy", "memmove", "memset"}
_LIBRARY |= {"PyLong_AsLongLong", "PyErr_Occurred", "PyEval_SaveThread", "PyEval_RestoreThread"}


def _hasten() -> None:
    """Leaves out what numba does for functions that are called at once, and what it does again and again."""
    # no machine code for each function by itself: only the whole becomes some
    JITCodeLibrary._finalize_specific = lambda self: None  # type: ignore[method-assign]
    JITCodeLibrary.get_pointer_to_function = lambda self, name: self._ensure_finalized() or 0  # type: ignore[method-assign]
    JITCPUCodegen.set_env = lambda self, name, env: None  # type: ignore[method-assign]
    # numba asks every implementation of `+`, `[]`, … for each place where one stands; the answer follows from the types
    resolve, known = types.Function.get_call_type, {}

    def remembered(self: Any, context: Any, args: Any, kws: Any) -> Any:
        key = (self.typing_key, *args)
        if kws or key not in known:
            found = resolve(self, context, args, kws)
            if kws:
                return found
            known[key] = found
        return known[key]

    types.Function.get_call_type = remembered  # type: ignore[method-assign]
    # which variables a statement has is asked at each step anew: most of its parts are none
    ir_of_numba.Inst._rec_list_vars = _variables  # type: ignore[method-assign]
    # between two steps only the blocks are put in order: how long variables live, the step that asks finds out
    compiler_machinery.PostProcessor = _Canonical  # type: ignore[attr-defined,assignment]
    llvm.ffi.lib._lock._cblist.clear()  # who hears of each call of LLVM: nobody
    gc.disable()  # nearly all that a compiler makes stays


_LEAVES = frozenset((str, int, float, bool, type(None), ir_of_numba.Loc))


def _variables(self: Any, part: Any) -> list[Any]:
    """The variables in a part of a statement of numba's."""
    kind = type(part)
    if kind is ir_of_numba.Var:
        return [part]
    if isinstance(part, ir_of_numba.Inst):
        return part.list_vars()  # type: ignore[no-any-return]
    if isinstance(part, dict):
        part = part.values()
    elif not isinstance(part, (list, tuple)):
        return [part] if isinstance(part, ir_of_numba.Var) else []
    return [variable for piece in part if type(piece) not in _LEAVES for variable in _variables(self, piece)]


class _Canonical:
    def __init__(self, function: Any) -> None:
        self._function = function

    def run(self) -> None:
        self._function.blocks = transforms.canonicalize_cfg(self._function.blocks)


def compile_part(part: str) -> bytes:
    """The object code of the kernels of a part."""
    _hasten()
    names = {*INNER, *(name for names in PARTS.values() for name in names)}
    modules = {name: importlib.import_module(f"streaming.engine.{name}") for name in sorted(names)}
    kernels = [
        value
        for name in PARTS[part]
        for value in vars(modules[name]).values()
        if isinstance(value, Kernel) and value.function.__module__ == modules[name].__name__
    ]
    _link(list(modules.values()))
    whole = llvm.parse_assembly("")
    for kernel in kernels:
        words = (types.int64, types.int64)  # the type of arrays, the tuple
        compiled = numba.njit(types.int64(*words), **_INNER)(_entry(kernel))
        module = llvm.parse_assembly(compiled.inspect_llvm(words))
        (target,) = (f.name for f in module.functions if not f.is_declaration and f.linkage == llvm.Linkage.external)
        whole.link_in(module)
        whole.link_in(llvm.parse_assembly(_wrapper(symbol(kernel.function), target, len(words))))
        whole.get_function(target).linkage = "internal"
    exported = {symbol(kernel.function) for kernel in kernels}
    for function in whole.functions:
        if function.name not in exported and not function.is_declaration:
            function.linkage = "internal"
    # as numba has it: code that may lie anywhere in memory
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(),
        features=llvm.get_host_cpu_features().flatten(),
        opt=2,
        reloc="static" if llvm.get_process_triple().startswith("x86") else "default",
        codemodel="jitdefault",
    )
    options = llvm.create_pipeline_tuning_options(speed_level=2)
    options.loop_vectorization = options.slp_vectorization = False
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(whole, builder)
    outside = {f.name for f in whole.functions if f.is_declaration and not f.name.startswith("llvm.")}
    if not outside <= _LIBRARY:
        raise RuntimeError(f"{part}: kernels that may raise, or own memory: {sorted(outside - _LIBRARY)}")
    return bytes(machine.emit_object(whole))


def main() -> None:
    part, path = sys.argv[1], Path(sys.argv[2])
    written = path.with_suffix(f".{os.getpid()}")
    written.write_bytes(compile_part(part))
    written.replace(path)


if __name__ == "__main__":
    main()
