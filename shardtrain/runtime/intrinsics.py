"""Instructions that numba has no function for: prefetches, copies, and what threads need to wait for each other."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic


def _as_pointer(context: Any, builder: Any, address: Any, kind: Any = None) -> Any:
    target = context.get_value_type(types.voidptr) if kind is None else kind.as_pointer()
    return builder.inttoptr(address, target)


@intrinsic
def pointer(typing_context: Any, address: Any) -> Any:
    """Convert an address to a pointer."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _as_pointer(context, builder, arguments[0])

    return types.voidptr(types.intp), generate


@intrinsic
def prefetch(typing_context: Any, address: Any) -> Any:
    """Prefetch the cache line at an address; invalid addresses are ignored."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = _as_pointer(context, builder, arguments[0])
        word = ir.IntType(32)
        function = builder.module.declare_intrinsic(
            "llvm.prefetch", [place.type], ir.FunctionType(ir.VoidType(), [place.type, word, word, word])
        )
        builder.call(function, [place, word(0), word(3), word(1)])  # to read, keep in all caches, data
        return context.get_dummy_value()

    return types.void(types.intp), generate


@intrinsic
def copy(typing_context: Any, target: Any, source: Any, count: Any) -> Any:
    """Copy `count` bytes between addresses with memcpy."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        places = [_as_pointer(context, builder, each) for each in arguments[:2]]
        cgutils.raw_memcpy(builder, *places, arguments[2], 1)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp), generate


@intrinsic
def add_shared(typing_context: Any, address: Any, value: Any) -> Any:
    """Add to the 64-bit integer at an address that threads share, in one step; return what was there before."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = _as_pointer(context, builder, arguments[0], ir.IntType(64))
        return builder.atomic_rmw("add", place, arguments[1], "seq_cst")

    return types.int64(types.intp, types.int64), generate


@intrinsic
def write_shared(typing_context: Any, address: Any, value: Any) -> Any:
    """Write the 64-bit integer at an address that threads share."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.store_atomic(arguments[1], _as_pointer(context, builder, arguments[0], ir.IntType(64)), "seq_cst", 8)
        return context.get_dummy_value()

    return types.void(types.intp, types.int64), generate


@intrinsic
def read_shared(typing_context: Any, address: Any) -> Any:
    """Read the 64-bit integer at an address that threads share."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = _as_pointer(context, builder, arguments[0], ir.IntType(64))
        return builder.load_atomic(place, "seq_cst", 8)

    return types.int64(types.intp), generate
