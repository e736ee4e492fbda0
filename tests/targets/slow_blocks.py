"""ggml's blocks packed one bit field at a time, from the description of each format.

Independent of the tables under test: every number is written where ggml's dequantizers look for
it, by index arithmetic on single codes.
"""

import struct

HALF = (0, 1 << 16)
RANGES = {
    "Q4_0": {"d": HALF, "codes": (-8, 8)},
    "Q4_1": {"d": HALF, "m": HALF, "codes": (0, 16)},
    "Q5_0": {"d": HALF, "codes": (-16, 16)},
    "Q5_1": {"d": HALF, "m": HALF, "codes": (0, 32)},
    "Q8_0": {"d": HALF, "codes": (-128, 128)},
    "Q2_K": {"d": HALF, "dmin": HALF, "scales": (0, 16), "mins": (0, 16), "codes": (0, 4)},
    "Q3_K": {"d": HALF, "scales": (-32, 32), "codes": (-4, 4)},
    "Q4_K": {"d": HALF, "dmin": HALF, "scales": (0, 64), "mins": (0, 64), "codes": (0, 16)},
    "Q5_K": {"d": HALF, "dmin": HALF, "scales": (0, 64), "mins": (0, 64), "codes": (0, 32)},
    "Q6_K": {"d": HALF, "scales": (-128, 128), "codes": (-32, 32)},
}
"""Field → half-open range of its values; FP16 fields as their bits."""


def half(fields, name):
    return struct.pack("<h", fields[name][0])


def q4_0(f):
    q = [code + 8 for code in f["codes"]]
    return half(f, "d") + bytes(q[i] | q[i + 16] << 4 for i in range(16))


def q4_1(f):
    q = f["codes"]
    return half(f, "d") + half(f, "m") + bytes(q[i] | q[i + 16] << 4 for i in range(16))


def fives(q):
    high = sum((q[i] >> 4) << i for i in range(32))
    low = bytes((q[i] & 15) | (q[i + 16] & 15) << 4 for i in range(16))
    return struct.pack("<I", high) + low


def q5_0(f):
    return half(f, "d") + fives([code + 16 for code in f["codes"]])


def q5_1(f):
    return half(f, "d") + half(f, "m") + fives(f["codes"])


def q8_0(f):
    return half(f, "d") + struct.pack("<32b", *f["codes"])


def two_bits(q):
    data = bytearray(64)
    for i, code in enumerate(q):
        data[i // 128 * 32 + i % 32] |= (code & 3) << (i % 128 // 32 * 2)
    return bytes(data)


def q2_k(f):
    scales = bytes(s | m << 4 for s, m in zip(f["scales"], f["mins"], strict=True))
    return scales + two_bits(f["codes"]) + half(f, "d") + half(f, "dmin")


def q3_k(f):
    q = [code + 4 for code in f["codes"]]
    mask = bytearray(32)
    for i, code in enumerate(q):
        mask[i % 32] |= (code >> 2) << (i // 32)
    scales = bytearray(12)
    for i, scale in enumerate(f["scales"]):
        value = scale + 32
        scales[i % 8] |= (value & 15) << (4 * (i // 8))
        scales[8 + i % 4] |= (value >> 4) << (2 * (i // 4))
    return bytes(mask) + two_bits(q) + bytes(scales) + half(f, "d")


def six_bits(f):
    data = bytearray(12)
    for i, (scale, minimum) in enumerate(zip(f["scales"], f["mins"], strict=True)):
        if i < 4:
            data[i] |= scale
            data[i + 4] |= minimum
        else:
            data[i + 4] |= (scale & 15) | (minimum & 15) << 4
            data[i - 4] |= (scale >> 4) << 6
            data[i] |= (minimum >> 4) << 6
    return bytes(data)


def fours(q):
    data = bytearray(128)
    for i, code in enumerate(q):
        data[i // 64 * 32 + i % 32] |= (code & 15) << (4 * (i % 64 // 32))
    return bytes(data)


def q4_k(f):
    return half(f, "d") + half(f, "dmin") + six_bits(f) + fours(f["codes"])


def q5_k(f):
    high = bytearray(32)
    for i, code in enumerate(f["codes"]):
        high[i % 32] |= (code >> 4) << (i // 32)
    return half(f, "d") + half(f, "dmin") + six_bits(f) + bytes(high) + fours(f["codes"])


def q6_k(f):
    low = bytearray(128)
    high = bytearray(64)
    for i, code in enumerate(f["codes"]):
        value = code + 32
        low[i // 128 * 64 + i % 64] |= (value & 15) << (4 * (i % 128 // 64))
        high[i // 128 * 32 + i % 32] |= (value >> 4) << (2 * (i % 128 // 32))
    return bytes(low) + bytes(high) + struct.pack("<16b", *f["scales"]) + half(f, "d")


def pack(name, fields):
    """The bytes of one block."""
    return globals()[name.lower()](fields)
