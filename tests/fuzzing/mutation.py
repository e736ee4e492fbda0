"""Sound files, changed at random: bytes, numbers, JSON values, fields of protocol buffers, lines.

A mutation takes a `random.Random` and bytes, and returns bytes. The same seed gives the same bytes.
"""

import json
import re
import struct
from copy import deepcopy
from random import Random

LONGEST = 1 << 20
"""Bytes of what a mutation returns: doubling must not go on without end."""
INTERESTING = (0, 1, 2, 7, 8, 31, 32, 127, 128, 255, 256, 32767, 65535, 2**31 - 1, 2**31, 2**32 - 1)
INTERESTING += (2**32, 2**53, 2**62, 2**63 - 1, 2**63, 2**64 - 1)

VALUES = (
    *(None, True, False, 0, 1, -1, 2, 7, 0.5, -0.0, 1e-320, 3.4e38, 1e300, 2**31, 2**53, 2**64),
    *(10**30, "", "a", "0", "1", "nan", "\0", "\ud800", "\U0001f600", "▁", "a" * 2000, "../a"),
    *("/dev/null", "<0x41>", [], {}, [0], [[]], [None], {"a": 1}, [1, "a"], {"content": "a"}),
    *({"type": "Sequence"}, [1.0] * 16),
)
"""What a value in a JSON document may be replaced by."""
NUMBER = re.compile(rb"\d+")
QUOTED = re.compile(rb'"[^"]*"')


def of_bytes(random: Random, data: bytes) -> bytes:
    """Bytes flipped, overwritten, cut out, doubled, put elsewhere; numbers overwritten."""
    changed = bytearray(data)
    for _ in range(1 + random.getrandbits(2)):
        at = random.randrange(len(changed) + 1)
        length = min(1 << random.randrange(12), len(changed) - at)
        match random.randrange(8):
            case 0 if at < len(changed):
                changed[at] ^= 1 << random.randrange(8)
            case 1 if at < len(changed):
                changed[at] = random.choice((0, 1, 0x7F, 0x80, 0xFE, 0xFF, random.randrange(256)))
            case 2:
                del changed[at : at + length]
            case 3:
                changed[at:at] = changed[at : at + length]
            case 4:
                width = random.choice((1, 2, 4, 8))
                number = random.choice(INTERESTING) & ((1 << 8 * width) - 1)
                changed[at : at + width] = number.to_bytes(width, "little")
            case 5:
                changed[at:at] = bytes(random.choice((0, 0xFF)) for _ in range(length))
            case 6:
                del changed[at:]
            case _:
                other = random.randrange(len(changed) + 1)
                changed[at : at + length] = changed[other : other + length]
    return bytes(changed[:LONGEST])


def of_text(random: Random, data: bytes) -> bytes:
    """Lines left out, doubled and exchanged; numbers and quoted words replaced."""
    match random.randrange(4):
        case 0:
            lines = data.split(b"\n")
            first, other = random.randrange(len(lines)), random.randrange(len(lines))
            match random.randrange(3):
                case 0:
                    del lines[first]
                case 1:
                    lines.insert(first, lines[other])
                case _:
                    lines[first], lines[other] = lines[other], lines[first]
            return b"\n".join(lines)[:LONGEST]
        case 1:
            word = str(random.choice((*INTERESTING, -1, 1.5, "9" * 30, "1e999", "nan"))).encode()
            return _replaced(random, NUMBER, data, word)
        case 2:
            word = random.choice((b'""', b'"a"', b'"\xff"', b"7", b"[]", b'"' + b"a" * 300 + b'"'))
            words = QUOTED.findall(data)
            return _replaced(random, QUOTED, data, random.choice((word, *words[:50])))
        case _:
            return of_bytes(random, data)


def of_json(random: Random, data: bytes) -> bytes:
    """Values of a document replaced, left out, doubled and put elsewhere."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return of_bytes(random, data)
    for _ in range(1 + random.getrandbits(1)):
        document = _changed(random, document)
    try:
        return json.dumps(document).encode()[:LONGEST]
    except (ValueError, RecursionError):
        return data


def of_header(random: Random, data: bytes) -> bytes:
    """A safetensors file whose header is changed and whose length is right again."""
    if len(data) < 8:
        return of_bytes(random, data)
    (length,) = struct.unpack_from("<Q", data)
    text = of_json(random, data[8 : 8 + length])
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


def of_proto(random: Random, data: bytes) -> bytes:
    """A protocol buffer: a field changed, left out or doubled, and the lengths are right again."""
    parts = list(_fields(data))
    if not parts:
        return of_bytes(random, data)
    at = random.randrange(len(parts))
    number, wire, value = parts[at]
    match random.randrange(6):
        case 0:
            del parts[at]
        case 1:
            parts.insert(random.randrange(len(parts)), parts[at])
        case 2 if wire == 0:
            parts[at] = (number, 0, random.choice(INTERESTING) & (2**64 - 1))
        case 3:
            parts[at] = (random.randrange(1, 30), wire, value)
        case _ if wire == 2 and value:
            inner = of_proto if random.getrandbits(3) and any(_fields(value)) else of_bytes
            parts[at] = (number, 2, inner(random, value))
        case _:
            parts[at] = (number, 2, random.randbytes(random.randrange(9)))
    return b"".join(_field(*part) for part in parts)[:LONGEST]


def of_gguf(random: Random, data: bytes) -> bytes:
    """A GGUF file: a field or a tensor changed, left out or doubled, and the counts are right."""
    try:
        fields, tensors, rest = _gguf_parts(data)
    except (KeyError, OverflowError, struct.error):
        return of_bytes(random, data)
    parts = random.choice((fields, fields, tensors))
    if not parts:
        return of_bytes(random, data)
    at, other = random.randrange(len(parts)), random.randrange(len(parts))
    match random.randrange(5):
        case 0:
            del parts[at]
        case 1:
            parts.insert(other, parts[at])
        case 2:
            parts[at], parts[other] = parts[other], parts[at]
        case _:
            parts[at] = of_bytes(random, parts[at])
    head = data[:8] + struct.pack("<QQ", len(tensors), len(fields)) + b"".join(fields + tensors)
    return (head + bytes(-len(head) % 32) + rest)[:LONGEST]


GGUF_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
GGUF_TEXT, GGUF_ARRAY = 8, 9


def _gguf_parts(data: bytes) -> tuple[list[bytes], list[bytes], bytes]:
    """The bytes of each field and of each tensor's info, and those of the tensors."""
    tensors, fields = struct.unpack_from("<QQ", data, 8)
    at, parts = 24, []
    for number in range(min(fields + tensors, 1000)):
        start = at
        at = _text_end(data, at)
        (word,) = struct.unpack_from("<I", data, at)
        at += 4
        at = _value_end(data, at, word) if number < fields else at + 8 * word + 12
        parts.append(data[start:at])
    return parts[:fields], parts[fields:], data[at + -at % 32 :]


def _text_end(data: bytes, at: int) -> int:
    return at + 8 + struct.unpack_from("<Q", data, at)[0]


def _value_end(data: bytes, at: int, kind: int) -> int:
    if kind == GGUF_TEXT:
        return _text_end(data, at)
    if kind != GGUF_ARRAY:
        return at + GGUF_SIZES[kind]
    kind, length = struct.unpack_from("<IQ", data, at)
    at += 12
    if kind != GGUF_TEXT:
        return at + length * GGUF_SIZES[kind]
    for _ in range(min(length, len(data))):
        at = _text_end(data, at)
    return at


def _changed(random: Random, value):
    """The value with one change somewhere in it."""
    inside = isinstance(value, dict | list) and value and random.randrange(8)
    if not inside:
        return deepcopy(random.choice(VALUES))
    keys = list(value) if isinstance(value, dict) else range(len(value))
    key = random.choice(keys)
    match random.randrange(6):
        case 0:
            del value[key]
        case 1 if isinstance(value, dict):
            value[random.choice(("", "a", "type", "__metadata__", key + "x"))] = value[key]
        case 1:
            value.insert(random.randrange(len(value)), value[key])
        case 2:
            value[key] = value[random.choice(keys)]
        case 3:
            value[key] = [value[key]] if random.getrandbits(1) else {"a": value[key]}
        case _:
            value[key] = _changed(random, value[key])
    return value


def _replaced(random: Random, pattern, data: bytes, word: bytes) -> bytes:
    matches = list(pattern.finditer(data))
    if not matches:
        return of_bytes(random, data)
    match = random.choice(matches)
    return data[: match.start()] + word + data[match.end() :]


def _fields(data: bytes):
    """Number, wire type and value of each field; nothing where the bytes are no message."""
    parts, at = [], 0
    try:
        while at < len(data):
            key, at = _varint(data, at)
            wire = key & 7
            if wire == 0:
                value, at = _varint(data, at)
            elif wire in (1, 2, 5):
                size = {1: 8, 5: 4}.get(wire)
                if size is None:
                    size, at = _varint(data, at)
                if at + size > len(data):
                    return []
                value = data[at : at + size]
                at += size
            else:
                return []
            parts.append((key >> 3, wire, value))
    except IndexError:
        return []
    return parts


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 70:
        value |= (data[at] & 0x7F) << shift
        at += 1
        if data[at - 1] < 0x80:
            return value, at
        shift += 7
    raise IndexError


def _field(number: int, wire: int, value) -> bytes:
    key = _written(number << 3 | wire)
    if wire == 0 and isinstance(value, int):
        return key + _written(value)
    if wire == 2:
        return key + _written(len(value)) + value
    return key + (value if isinstance(value, bytes) else b"")


def _written(number: int) -> bytes:
    data = bytearray()
    while number > 0x7F:
        data.append(number & 0x7F | 0x80)
        number >>= 7
    data.append(number)
    return bytes(data)
