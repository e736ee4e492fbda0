"""The rotary embedding of a graph, from its cos and sin caches.

Our graphs state theta and LongRoPE's factors in their metadata; the caches must agree, because
they are what is computed with. For other graphs both follow from the caches: the row of position
1 is (cos f, sin f) times the attention factor for the frequencies f. With one cache every factor
is 1 and the least frequency gives theta. With two, theta and the factors cannot be told apart;
theta is then taken to be 10,000, Phi-3's and Phi-4-mini's, and the factors follow.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from phiquant.errors import ArtifactError
from phiquant.phi.network.parts import LongRope, Rope
from phiquant.phi.network.rope import frequencies
from phiquant.phi.soundness import rope_fault
from phiquant.quantization.grid import Floats
from phiquant.targets.onnx.model_file import ModelFile, graph

Stored = npt.NDArray[np.generic]

ASSUMED_THETA = 10000.0
TOLERANCE = {ir.DataType.FLOAT: 1e-5, ir.DataType.FLOAT16: 4e-3}
"""Of a frequency that a cache's elements give, relative."""


@dataclass(frozen=True, slots=True)
class Cache:
    """Rows of position 1: cos and sin of one list of factors, and the number of rows."""

    cos: Floats
    sin: Floats
    rows: int
    dtype: ir.DataType

    @property
    def frequencies(self) -> Floats:
        """Radians a position."""
        return np.arctan2(self.sin, self.cos)

    @property
    def attention_factor(self) -> float:
        """What cos and sin are multiplied by."""
        lengths = np.hypot(self.cos.astype(np.float64), self.sin)
        return float(lengths.mean())


def read_caches(file: ModelFile, original: int) -> tuple[Cache, ...]:
    """The one cache of the graph, or LongRoPE's short and long ones.

    `original` is where the long half of a cache that is two in one begins, 0 for none.
    """
    for node in file.nodes:
        if node.op_type == "If":
            branches = [graph(node, name) for name in ("else_branch", "then_branch")]
            own = [each for each in branches if each is not None and len(each.outputs) == 2]
            if len(own) == 2:
                constants = [
                    [file.array(file.tensor(output)) for output in branch.outputs]
                    for branch in own
                    if all(_is_constant(output) for output in branch.outputs)
                ]
                if len(constants) == 2:
                    return tuple(_cache(cos, sin, 0, len(cos)) for cos, sin in constants)
    cos, sin = (_stored(file, name) for name in ("cos_cache", "sin_cache"))
    if original:
        return (_cache(cos, sin, 0, original), _cache(cos, sin, original, len(cos) - original))
    return (_cache(cos, sin, 0, len(cos)),)


def read_rope(caches: tuple[Cache, ...], stated: Rope | None) -> Rope:
    """The rotary embedding; ArtifactError where the caches are not what the metadata state."""
    dimensions = 2 * caches[0].cos.size
    if stated is not None:
        _check(caches, stated)
        return stated
    if any(cache.cos.size != caches[0].cos.size for cache in caches) or not all(
        _turns(cache) for cache in caches
    ):
        raise ArtifactError("the rotary caches are those of no rotation")
    if len(caches) == 1:
        exponent = (dimensions - 2) / dimensions
        theta = float(caches[0].frequencies[-1]) ** (-1 / exponent) if exponent else ASSUMED_THETA
        return Rope(_rounded(theta), dimensions)
    exponents = np.arange(0, dimensions, 2) / dimensions
    short, long = (
        tuple(
            float(factor)
            for factor in 1 / (cache.frequencies.astype(np.float64) * ASSUMED_THETA**exponents)
        )
        for cache in caches
    )
    return Rope(
        ASSUMED_THETA,
        dimensions,
        LongRope(short, long, caches[0].rows, caches[0].attention_factor),
    )


def _check(caches: tuple[Cache, ...], stated: Rope) -> None:
    long = stated.long
    fault = rope_fault(stated)
    if fault is not None:
        raise ArtifactError(f"the graph states a rotary embedding that is none: {fault}")
    if any(2 * cache.cos.size != stated.dimensions for cache in caches):
        raise ArtifactError("the rotary caches are not those of the stated rope parameters")
    lengths = [1, long.original_positions + 1] if long is not None else [1]
    for cache, length in zip(caches, lengths, strict=False):
        expected = frequencies(stated, length)
        tolerance = TOLERANCE.get(cache.dtype, 4e-3)
        if expected.shape != cache.cos.shape or not np.allclose(
            cache.frequencies, expected, rtol=tolerance, atol=tolerance * 1e-2
        ):
            raise ArtifactError("the rotary caches are not those of the stated rope parameters")


def _turns(cache: Cache) -> bool:
    """Whether the cache turns every pair, some way on at each position."""
    return bool((cache.frequencies > 0).all()) and cache.attention_factor > 0


def _rounded(theta: float) -> float:
    """A theta that float32 caches give to six digits or so, as the number that was meant."""
    nearest = round(theta)
    return float(nearest) if abs(theta - nearest) < 1e-5 * theta else theta


def _is_constant(value: ir.Value) -> bool:
    producer = value.producer()
    return value.const_value is not None or (
        producer is not None and producer.op_type == "Constant"
    )


def _stored(file: ModelFile, name: str) -> Stored:
    initializers = file.model.graph.initializers
    value = initializers.get(f"{name}.weight") or initializers.get(name)
    if value is None:
        raise ArtifactError(f"the graph has no {name}; expected rotary caches of that name")
    return file.array(file.tensor(value))


def _cache(cos: Stored, sin: Stored, first: int, rows: int) -> Cache:
    at = first + 1
    if (
        cos.ndim != 2
        or cos.shape != sin.shape
        or at >= len(cos)
        or not cos.size
        or {cos.dtype, sin.dtype} - {np.dtype(np.float16), np.dtype(np.float32)}
    ):
        raise ArtifactError("the rotary caches should be two matrices with a row a position")
    dtype = ir.DataType.from_numpy(cos.dtype)
    return Cache(cos[at].astype(np.float32), sin[at].astype(np.float32), rows, dtype)
