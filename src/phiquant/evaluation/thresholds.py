"""How much an artifact may lose, by how many bits it spends on a weight.

The figure is the mean KL divergence to the FP32 reference, in nats a token. The limits are no
marks for quality: compare the figures for that. They lie between what rounding can explain and
what only a fault can. Measured on SmolLM2-135M with unevenly scaled channels, the hardest case at
hand (larger models lose less):

    rounding                                        a fault
    FP32       order of summation alone   1e-11     RMSNorm's epsilon 1e-6, not 1e-5    2e-7
    16 bits    FP16 4e-6, BF16            1e-4      rotary base 90000, not 100000       3e-4
    8 bits     GGUF Q8_0                  8e-3      rotary base  10000, not 100000      0.13
    6 bits     GGUF Q4_K_M, 6.3 bits here 0.12      two down projections swapped        1.1
    4 bits     MLX, groups of 64          0.97      query and key rows interleaved      8.1

So no limit on this figure tells every fault from rounding at few bits. That is what the direct
checks are for: of metadata, of each tensor against the checkpoint's, and of the runtime against
the decoded weights. What the limit adds is the net below them.

The second figure of a row bounds what *arithmetic* may do: the runtime against the reference
forward over the same decoded weights. Both see the same weights, so for floats only rounding of
activations to 16 bits and the order of sums differ. In front of quantized matrices llama.cpp
rounds activations to 8 bits, in blocks of up to 256, which costs some 0.02 nats in small models
with uneven channels. A wrong rotation, mask or norm costs from 0.1 to several nats, and at the
floats' precisions far smaller faults show.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limit:
    """The greatest mean KL divergences, in nats a token, for at least `bits` per weight."""

    bits: float
    mean_kl: float
    """To the checkpoint."""
    runtime_kl: float
    """Of the runtime to the reference forward over the artifact's own weights."""
    precision: str


LIMITS = (
    Limit(24.0, 1e-6, 1e-6, "32-bit"),
    Limit(12.0, 1e-2, 1e-2, "16-bit"),
    Limit(7.5, 0.1, 0.1, "8-bit"),
    Limit(5.25, 0.5, 0.1, "5- and 6-bit"),
    Limit(3.9, 2.0, 0.1, "4-bit"),
    Limit(3.0, 3.0, 0.1, "3-bit"),
    Limit(0.0, 5.0, 0.1, "2-bit"),
)

WEIGHT_ERROR = 0.75
"""The greatest error of a decoded tensor, relative to the norm of the checkpoint's.

Zeros would give 1, another tensor of the same size about 1.4; the coarsest rounding on offer
(2 bits, one scale for 64 weights) stays near 0.5.
"""


def limit_for(layer_bits: float) -> Limit:
    """The row of the table for layers of so many bits per weight (see `size.layer_bits`)."""
    return next(limit for limit in LIMITS if layer_bits >= limit.bits)
