"""Eight runs of eight floats, transposed in registers.

Loops over single elements take a store each, four times the cost of the shuffles here. Three
rounds of interleaving rows i and i + 4 transpose eight rows; LLVM turns each into what the
processor has (vpermt2ps, vunpcklps, zip1).
"""
# ruff: noqa: ANN401 (numba's code generators are untyped)

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]

from phiquant.host.kernel import intrinsic, types

SIDE = 8

ROW = ir.VectorType(ir.FloatType(), SIDE)
MASK = ir.VectorType(ir.IntType(32), SIDE)
LOWER = ir.Constant(MASK, [0, 8, 1, 9, 2, 10, 3, 11])
UPPER = ir.Constant(MASK, [4, 12, 5, 13, 6, 14, 7, 15])


@intrinsic
def transpose_block(  # noqa: PLR0917 (an intrinsic takes no structures)
    _context: Any, source: Any, at: Any, stride: Any, target: Any, to: Any, width: Any
) -> Any:
    """`target[to + j * width + i] = source[at + i * stride + j]` for i, j < SIDE; flat float32."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        def place(array: int, first: int, step: int, row: int) -> Any:
            data = context.make_array(signature.args[array])(context, builder, args[array]).data
            skipped = builder.mul(args[step], ir.Constant(ir.IntType(64), row))
            address = builder.gep(data, [builder.add(args[first], skipped)])
            return builder.bitcast(address, ROW.as_pointer())

        rows = [builder.load(place(0, 1, 2, row), align=4) for row in range(SIDE)]
        for _ in range(3):
            rows = [
                builder.shuffle_vector(rows[i], rows[i + SIDE // 2], mask)
                for i in range(SIDE // 2)
                for mask in (LOWER, UPPER)
            ]
        for row, values in enumerate(rows):
            builder.store(values, place(3, 4, 5, row), align=4)
        return context.get_dummy_value()

    index = types.int64
    return types.void(source, index, index, target, index, index), generate
