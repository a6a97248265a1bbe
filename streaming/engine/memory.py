"""Numbers at an address, for kernels: text eight bytes at a time, and buffers that Arrow owns."""

# mypy: disable-error-code="no-untyped-call, no-any-return"
from __future__ import annotations

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic

__all__ = ["load8", "load16", "load32", "load64", "load_float32", "load_float64", "pointer"]


def _loader(kind: Any, result: Any, name: str) -> Any:
    """A kernel function `address -> number`; the address need not be aligned."""

    def load(typingctx: Any, address: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            value = builder.load(builder.inttoptr(args[0], ir.PointerType(kind)), align=1)
            if isinstance(kind, ir.FloatType):
                return builder.fpext(value, ir.DoubleType())
            if isinstance(kind, ir.IntType) and kind.width < 64:
                return builder.sext(value, ir.IntType(64))
            return value

        return result(types.int64), codegen

    load.__name__ = load.__qualname__ = name
    return intrinsic(load)


load8 = _loader(ir.IntType(8), types.int64, "load8")
load16 = _loader(ir.IntType(16), types.int64, "load16")
load32 = _loader(ir.IntType(32), types.int64, "load32")
load64 = _loader(ir.IntType(64), types.int64, "load64")
load_float32 = _loader(ir.FloatType(), types.float64, "load_float32")
load_float64 = _loader(ir.DoubleType(), types.float64, "load_float64")


@intrinsic
def pointer(typingctx: Any, address: Any) -> Any:
    """The int64 pointer at an address: tables of one plan are few or many, but kernels are compiled once."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], ir.PointerType(ir.IntType(64)))

    return types.CPointer(types.int64)(types.int64), codegen
