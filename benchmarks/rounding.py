"""Speed and error of every searched rounding, beside the runtime's own quantizer.

    python benchmarks/rounding.py [NAME ...]

For each format: processor time a weight of encoding (all cores' time added up; a lone process on
an idle machine), and the squared error of what the runtime decodes, divided by that of the
runtime's own quantizer (ggml_quantize_chunk, mx.quantize) on the same weights: normal, Student's
t with 3 degrees of freedom, and rows of a real embedding; for GGUF also with an importance matrix
for both, errors weighted by it. Below 1 is better than the runtime.
"""

import sys
import time
from pathlib import Path

import numpy as np

TESTS = Path(__file__).parents[1] / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "targets")]

import ggml_reference as ggml  # noqa: E402
import mlx.core as mx  # noqa: E402

from phiquant.quantization.floats import FLOAT_TYPES, cast, widen  # noqa: E402
from phiquant.quantization.grid import Floats, Grid  # noqa: E402
from phiquant.targets.gguf.grids import GRIDS  # noqa: E402
from phiquant.targets.mlx.grids import BITS, GroupedAffineGrid  # noqa: E402
from weight_samples import importance_of, samples, squared_error  # noqa: E402

BF16 = FLOAT_TYPES["BF16"]
KINDS = ("normal", "student", "real")


def nanoseconds(grid: Grid, weights: Floats) -> float:
    """Least processor time a weight over some encodings."""
    grid.encode(weights[:64])
    least = float("inf")
    for _ in range(5):
        begin = time.process_time()
        grid.encode(weights)
        least = min(least, time.process_time() - begin)
    return 1e9 * least / weights.size


def mx_round_trip(weights: Floats, grid: GroupedAffineGrid) -> Floats:
    parts = mx.quantize(
        mx.array(weights).astype(mx.bfloat16), group_size=grid.group, bits=grid.bits
    )
    decoded = mx.dequantize(*parts, group_size=grid.group, bits=grid.bits)
    return np.array(decoded.astype(mx.float32))


def gguf_ratio(name: str, weights: Floats, importance: Floats | None) -> float:
    columns = weights.shape[1]
    ours = GRIDS[name].decode(GRIDS[name].encode(weights, importance), columns)
    theirs = ggml.dequantize(name, ggml.quantize(name, weights, importance), columns)
    return squared_error(ours, weights, importance) / squared_error(theirs, weights, importance)


def mlx_ratio(grid: GroupedAffineGrid, weights: Floats) -> float:
    ours = grid.decode(grid.encode(weights), weights.shape[1])
    return squared_error(ours, weights) / squared_error(mx_round_trip(weights, grid), weights)


def main(wanted: list[str]) -> None:
    mx.set_default_device(mx.cpu)
    large = 0.02 * np.random.default_rng(0).standard_normal((1024, 3072), dtype=np.float32)
    weights = {
        kind: widen(cast(rows, BF16), BF16) for kind, rows in samples(144).items() if kind in KINDS
    }
    importance = importance_of()
    print(f"{'format':10} {'ns·core':>8} " + " ".join(f"{kind:>8}" for kind in KINDS), end="")
    print("   with importance")
    for name in ggml.TYPES:
        if wanted and name not in wanted:
            continue
        plain = [gguf_ratio(name, weights[kind], None) for kind in KINDS]
        weighted = [gguf_ratio(name, weights[kind], importance) for kind in KINDS]
        speed = nanoseconds(GRIDS[name], large)
        print(f"{name:10} {speed:8.2f} " + " ".join(f"{ratio:8.4f}" for ratio in plain), end="  ")
        print(" ".join(f"{ratio:8.4f}" for ratio in weighted), flush=True)
    for bits in BITS:
        for group in (32, 64, 128):
            grid = GroupedAffineGrid(bits, group, BF16)
            if (wanted or group != 64) and grid.name not in wanted:
                continue
            plain = [mlx_ratio(grid, weights[kind]) for kind in KINDS]
            speed = nanoseconds(grid, large)
            print(f"{grid.name:10} {speed:8.2f} " + " ".join(f"{ratio:8.4f}" for ratio in plain))


if __name__ == "__main__":
    main(sys.argv[1:])
