"""Stores past the caches, for compiled CPU kernels whose output is larger than them.

An ordinary store first fetches the cache line that it is about to overwrite: half as many bytes
again for a kernel that reads one array and writes another. Compilers vectorise no such store by
themselves, for they cannot know that the memory is aligned.
"""

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

LINE = 64  # bytes of a cache line
LARGE = 2**23  # bytes of an output that no private cache holds


@intrinsic
def stream(typing: Any, to: Any, row: Any) -> Any:
    """Copy a row into contiguous memory past the caches; by ordinary stores if it is not aligned.

    Both are one-dimensional contiguous arrays of one type and length.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = signature.args[0]
        to, row = (
            context.make_array(kind)(context, builder, value)
            for kind, value in zip(signature.args, arguments, strict=True)
        )
        count = builder.extract_value(to.shape, 0)
        size = context.get_abi_sizeof(context.get_data_type(array.dtype))
        width = LINE // size
        vector = ir.VectorType(context.get_data_type(array.dtype), width).as_pointer()
        address = builder.ptrtoint(to.data, count.type)
        aligned = builder.icmp_unsigned(
            "==", builder.and_(address, count.type(LINE - 1)), count.type(0)
        )
        lines = builder.select(aligned, builder.udiv(count, count.type(width)), count.type(0))
        hint = builder.module.add_metadata([ir.IntType(32)(1)])
        with cgutils.for_range(builder, lines) as loop:
            source = builder.gep(builder.bitcast(row.data, vector), [loop.index])
            target = builder.gep(builder.bitcast(to.data, vector), [loop.index])
            store = builder.store(builder.load(source, align=size), target, align=LINE)
            store.set_metadata("nontemporal", hint)
        rest = builder.mul(lines, count.type(width))
        with cgutils.for_range_slice(builder, rest, count, count.type(1)) as (i, _):
            value = builder.load(builder.gep(row.data, [i]))
            builder.store(value, builder.gep(to.data, [i]))
        return context.get_dummy_value()

    return types.void(to, row), generate
