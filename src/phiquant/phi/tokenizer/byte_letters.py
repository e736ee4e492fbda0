"""The letters that stand for bytes in the pieces of a byte-level tokenizer.

Printable bytes of Latin-1 stand for themselves; the 68 others are the letters from U+0100 on.
Source: `bytes_to_unicode` of GPT-2's encoder.py.
"""

from collections.abc import Mapping

OWN = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))
"""Bytes that stand for themselves."""

NO_BYTE = 0xFFFF


def _bytes_by_letter() -> Mapping[int, int]:
    others = [byte for byte in range(256) if byte not in OWN]
    letters = {byte: NO_BYTE for byte in others}
    return letters | {0x100 + count: byte for count, byte in enumerate(others)}


BYTES_BY_LETTER = _bytes_by_letter()


def piece_bytes(piece: str) -> bytes | None:
    """The bytes that `piece` stands for; None if not all of its letters stand for bytes."""
    try:
        return piece.translate(BYTES_BY_LETTER).encode("latin-1")
    except UnicodeEncodeError:
        return None
