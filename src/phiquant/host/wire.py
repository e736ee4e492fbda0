"""Protocol buffers on the wire: the fields of a message, and nothing taken for granted.

    key    varint: number of the field << 3 | wire type
    value  wire type 0 varint | 1 eight bytes | 2 varint length, bytes | 5 four bytes

A varint has seven bits a byte, lowest first, the high bit set on all but the last byte.
Source: https://protobuf.dev/programming-guides/encoding.
"""

from collections.abc import Iterator

LONGEST_VARINT = 10
"""Bytes of 64 bits. Without an end, a number of megabytes would be put together bit by bit."""
FIXED = {1: 8, 5: 4}
"""Wire type → bytes of the value."""

Value = int | memoryview
"""A varint as a number; everything else as its bytes, which are not copied."""


def fields(message: memoryview, most: int) -> Iterator[tuple[int, Value]]:
    """Number and value of each field, in order.

    Raises ValueError for bytes that are no message, and for more than `most` fields.
    """
    at = count = 0
    while at < len(message):
        count += 1
        if count > most:
            raise ValueError(f"more than {most:,} fields in one message")
        key, at = _varint(message, at)
        wire = key & 7
        if wire == 0:
            value, at = _varint(message, at)
            yield key >> 3, value
            continue
        if wire == 2:
            size, at = _varint(message, at)
        elif wire in FIXED:
            size = FIXED[wire]
        else:
            raise ValueError(f"wire type {wire} at byte {at}")
        if size > len(message) - at:
            raise ValueError(f"{size} bytes expected at byte {at}, {len(message) - at} left")
        yield key >> 3, message[at : at + size]
        at += size


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """The number at byte `at`, and where it ends."""
    if at < len(message) and message[at] < 0x80:  # as most are
        return message[at], at + 1
    value = shift = 0
    for place in range(at, min(at + LONGEST_VARINT, len(message))):
        byte = message[place]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place + 1
        shift += 7
    raise ValueError(f"a number without an end at byte {at}")
