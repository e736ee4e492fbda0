"""Changing single fields of a GGUF file: its header is taken apart and put together again."""

import struct

ALIGNMENT = 32
SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
STRING, ARRAY = 8, 9
UINT32, FLOAT32 = 4, 6


def with_fields(data, changes):
    """The file's bytes with `changes`: key → (type, packed value), or None to leave it out."""
    version, tensors, count = struct.unpack_from("<IQQ", data, 4)
    at, fields = 24, {}
    for _ in range(count):
        key, at = _string(data, at)
        (kind,) = struct.unpack_from("<I", data, at)
        end = _end(data, at + 4, kind)
        fields[key] = data[at:end]
        at = end
    infos = at
    for _ in range(tensors):
        _, at = _string(data, at)
        (dimensions,) = struct.unpack_from("<I", data, at)
        at += 4 + 8 * dimensions + 4 + 8
    for key, change in changes.items():
        fields.pop(key, None)
        if change is not None:
            fields[key] = struct.pack("<I", change[0]) + change[1]
    head = b"GGUF" + struct.pack("<IQQ", version, tensors, len(fields))
    head += b"".join(string(key) + value for key, value in fields.items()) + data[infos:at]
    return head + bytes(-len(head) % ALIGNMENT) + data[at + -at % ALIGNMENT :]


def uint32(value):
    """A field of that type."""
    return UINT32, struct.pack("<I", value)


def text(value):
    """A field that holds a string."""
    return STRING, string(value)


def string(value):
    """A string as GGUF holds it."""
    return struct.pack("<Q", len(value.encode())) + value.encode()


def _string(data, at):
    (length,) = struct.unpack_from("<Q", data, at)
    return data[at + 8 : at + 8 + length].decode(), at + 8 + length


def _end(data, at, kind):
    """Where a value of `kind` ends that begins at `at`."""
    if kind == STRING:
        return _string(data, at)[1]
    if kind != ARRAY:
        return at + SIZES[kind]
    inner, count = struct.unpack_from("<IQ", data, at)
    at += 12
    if inner != STRING:
        return at + SIZES[inner] * count
    for _ in range(count):
        at = _string(data, at)[1]
    return at
