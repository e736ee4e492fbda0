"""Attacks by GGUF files, and by importance matrices in both encodings."""

import struct

import gguf
import numpy as np

from attacks.attack import (
    FAILED_VERIFICATION,
    INSPECT,
    VERIFY,
    Attack,
    all_of,
    content,
    link_out,
    make_pipe,
    pipe,
    removed,
)

FILE = "checkpoint-Q4_K_M.gguf"
U8, U32, F32, STRING, ARRAY, U64 = 0, 4, 6, 8, 9, 10
BLOCKS, DIMENSIONS, FACTORS = (
    "phi3.block_count",
    "phi3.rope.dimension_count",
    "rope_factors_long.weight",
)


# The format, by hand


def text(word):
    data = word if isinstance(word, bytes) else word.encode()
    return struct.pack("<Q", len(data)) + data


def field(key, kind, payload):
    return text(key) + struct.pack("<I", kind) + payload


def u32(key, number):
    return field(key, U32, struct.pack("<I", number))


def array(key, kind, length, data=b""):
    return field(key, ARRAY, struct.pack("<IQ", kind, length) + data)


def info(name, shape, kind=0, offset=0):
    extents = struct.pack(f"<I{len(shape)}Q", len(shape), *reversed(shape))
    return text(name) + extents + struct.pack("<IQ", kind, offset)


def file(fields=(), tensors=(), data=b"", version=3, counts=None):
    count = counts or (len(tensors), len(fields))
    head = b"GGUF" + struct.pack("<IQQ", version, *count) + b"".join((*fields, *tensors))
    return head + bytes(-len(head) % 32) + data


def changed(change):
    """The sound file after `change` of its fields and tensor infos, bytes by name."""

    def write(directory):
        path = directory / FILE
        data = path.read_bytes()
        reader = gguf.GGUFReader(path)
        fields = {
            name: b"".join(part.tobytes() for part in entry.parts)
            for name, entry in reader.fields.items()
            if not name.startswith("GGUF.")
        }
        tensors = {
            tensor.name: b"".join(part.tobytes() for part in tensor.field.parts)
            for tensor in reader.tensors
        }
        change(fields, tensors)
        path.write_bytes(file(fields.values(), tensors.values(), data[reader.data_offset :]))

    return write


def fields(**raw):
    """Other fields; a key is spelled with __ for a dot."""
    return changed(lambda sound, _: sound.update({k.replace("__", "."): v for k, v in raw.items()}))


def row(name, damage, *words, command=INSPECT, code=2):
    return Attack(name, "gguf", damage, words, command, code)


def lie(name, data, *words):
    return row(name, content(FILE, data), *words)


def number(name, key, value, *words):
    return row(name, changed(lambda f, _: f.update({key: u32(key, value)})), *words)


def far_offset(_, tensors):
    raw = tensors["output_norm.weight"]
    tensors["output_norm.weight"] = raw[:-8] + struct.pack("<Q", 1 << 40)


def overlapping(_, tensors):
    raw = tensors["output_norm.weight"]
    tensors["output_norm.weight"] = raw[:-8] + struct.pack("<Q", 0)


def factors(count):
    """LongRoPE factors in a file of nothing that takes no room."""

    def write(directory):
        changed(
            lambda _, tensors: tensors.update({FACTORS: info(FACTORS, (count,), offset=1 << 22)})
        )(directory)
        with (directory / FILE).open("r+b") as stream:
            stream.truncate((1 << 23) + 4 * count)

    return write


def split(directory):
    (directory / FILE).rename(directory / "model-00001-of-99999.gguf")


def second(directory):
    (directory / "other.gguf").write_bytes((directory / FILE).read_bytes())


def shape_of(name, shape):
    def change(_, tensors):
        raw = tensors[name]
        tensors[name] = info(name, shape, *struct.unpack("<IQ", raw[-12:]))

    return changed(change)


def scales_of_ones(directory):
    """Every byte of every tensor 0xFF: scales that are no numbers."""
    path = directory / FILE
    data = path.read_bytes()
    start = gguf.GGUFReader(path).data_offset
    path.write_bytes(data[:start] + b"\xff" * (len(data) - start))


# Importance matrices


PLAN = ("plan", "MODEL", "--quality", "balanced", "--imatrix", "HERE/matrix", "-q")
EMBEDDING = "blk.0.ffn_down.weight"


def matrix(name, data, *words):
    def write(directory):
        place = directory.parent / "matrix"
        place.write_bytes(data) if isinstance(data, bytes) else data(place)

    return Attack(f"matrix {name}", "checkpoint", write, words, PLAN)


def legacy(*entries, tail=b"", count=None):
    data = struct.pack("<i", len(entries) if count is None else count)
    for name, calls, sums in entries:
        word = name if isinstance(name, bytes) else name.encode()
        data += struct.pack("<i", len(word)) + word + struct.pack("<ii", calls, len(sums))
        data += np.array(sums, "<f4").tobytes()
    return data + tail


def imatrix(*tensors):
    """A matrix as GGUF of tensors (name, shape, values)."""
    infos, data = [], b""
    for name, shape, values in tensors:
        infos.append(info(name, shape, offset=len(data)))
        blob = np.array(values, "<f4").tobytes()
        data += blob + bytes(-len(blob) % 32)
    return file([field("general.type", STRING, text("imatrix"))], infos, data)


def _sparse(place):
    with place.open("wb") as stream:
        stream.truncate(2 << 30)


ONES = [1.0] * 256

ATTACKS = [
    row("a pipe for a GGUF file", pipe(FILE), FILE, "pipe"),
    row("a link out for a GGUF file", link_out(FILE), FILE, "outside", command=VERIFY),
    row("one of 99,999 files", split, "99994 more"),
    row("two models", second, "other.gguf"),
    lie("four letters", b"GGUF", "inside its header"),
    lie("another magic", b"PK\3\4" + bytes(100), "starts with"),
    lie("a version to come", file(version=99), "99"),
    lie("a version of the other order", file(version=3 << 24), "version"),
    lie("2^60 tensors", file(counts=(1 << 60, 0)), "tensors"),
    lie("2^60 fields", file(counts=(0, 1 << 60)), "fields"),
    lie(
        "1.5 million empty tensors",
        lambda: file(tensors=[info("x", (1,))] * 10, counts=(1_500_000, 0), data=bytes(60 << 20)),
        "1500000 tensors",
    ),
    lie("60,000 fields", lambda: file([u32(f"k{n}", 1) for n in range(60_000)]), "60000 fields"),
    lie("an array of 2^60", file([array("k", U8, 1 << 60)]), "1152921504606846976"),
    lie(
        "an array of 60 million",
        lambda: file([array("k", U8, 60_000_000, bytes(60_000_000))]),
        "60000000 elements",
    ),
    lie(
        "an array of 30 million",
        lambda: file([array("k", U8, 30_000_000, bytes(30_000_000))]),
        "architecture",
    ),
    lie(
        "an array of 3 million texts",
        lambda: file([array("k", STRING, 3_000_000, bytes(24_000_000))]),
        "1048576 texts",
    ),
    lie("an array of 2^60 texts", file([array("k", STRING, 1 << 60)]), "elements"),
    lie("arrays within one another", file([array("k", ARRAY, 1)]), "unsupported type 9"),
    lie("a text of exabytes", file([field("k", STRING, struct.pack("<Q", 1 << 60))]), "bytes"),
    lie("a text of megabytes", file([field("k", STRING, text("x" * (2 << 20)))]), "2097152 bytes"),
    lie("a key of megabytes", file([u32("k" * (1 << 20), 1)]), "1048576 bytes"),
    lie("a field twice", file([u32("k", 1), u32("k", 2)]), "'k' twice"),
    lie("a value of an unknown type", file([field("k", 77, b"")]), "unknown value type 77"),
    lie("an alignment of nothing", file([u32("general.alignment", 0)]), "alignment"),
    lie(
        "an alignment of a text",
        file([field("general.alignment", STRING, text("32"))]),
        "alignment",
    ),
    lie("a tensor without dimensions", file(tensors=[info("x", ())]), "0 dimensions"),
    lie("a tensor of a billion dimensions", file(tensors=[text("x") + b"\xff" * 40]), "dimensions"),
    lie("a tensor of nothing", file(tensors=[info("x", (0, 4))]), "[0, 4]"),
    lie("a tensor whose size overflows", file(tensors=[info("x", (1 << 62, 1 << 62))]), "cut off"),
    lie(
        "a tensor of an unknown type", file(tensors=[info("x", (32,), kind=99)]), "unknown type 99"
    ),
    lie(
        "a tensor twice", file(tensors=[info("x", (8,)), info("x", (8,))], data=bytes(64)), "twice"
    ),
    lie("a tensor off the alignment", file(tensors=[info("x", (8,), offset=7)]), "alignment"),
    lie("a name of a megabyte", file(tensors=[info("x" * (1 << 20), (8,))]), "1048576 bytes"),
    row("a tensor beyond the file", changed(far_offset), "cut off or its header lies"),
    row("tensors over one another", changed(overlapping), "overlap"),
    row(
        "half of a file",
        lambda d: (d / FILE).write_bytes((d / FILE).read_bytes()[:-5000]),
        "cut off",
    ),
    row("no architecture", changed(lambda f, _: f.pop("general.architecture")), "None"),
    row(
        "an architecture of a number",
        fields(general__architecture=u32("general.architecture", 3)),
        "found 3",
    ),
    row(
        "an architecture of 30 million numbers",
        changed(
            lambda sound, _: sound.update(
                {
                    "general.architecture": array(
                        "general.architecture", U8, 3 * 10**7, bytes(3 * 10**7)
                    )
                }
            )
        ),
        "array",
    ),
    number("no blocks", BLOCKS, 0, BLOCKS),
    number("two billion blocks", BLOCKS, 2**31 - 1, "2147483647 layers"),
    number("heads of nothing", "phi3.attention.head_count", 0, "head_count"),
    number("heads that do not divide", "phi3.attention.head_count", 7, "7 heads"),
    number("heads that cannot share", "phi3.attention.head_count_kv", 3, "3 key-value heads"),
    number("heads of another size", "phi3.attention.key_length", 64, "attn_qkv", "[512, 128]"),
    number("7 rotary dimensions", DIMENSIONS, 7, "7 rotary dimensions"),
    number("more rotary dimensions than values", DIMENSIONS, 64, "64 rotary dimensions"),
    number(
        "a feed-forward of another size", "phi3.feed_forward_length", 255, "ffn_up", "[510, 128]"
    ),
    row(
        "an epsilon that is no number",
        fields(
            phi3__attention__layer_norm_rms_epsilon=field(
                "phi3.attention.layer_norm_rms_epsilon", F32, struct.pack("<f", np.nan)
            )
        ),
        "epsilon",
    ),
    row(
        "an epsilon of nothing",
        fields(
            phi3__attention__layer_norm_rms_epsilon=field(
                "phi3.attention.layer_norm_rms_epsilon", F32, struct.pack("<f", 0)
            )
        ),
        "norm epsilon of 0.0",
    ),
    row(
        "a base below zero",
        fields(phi3__rope__freq_base=field("phi3.rope.freq_base", F32, struct.pack("<f", -1))),
        "rope theta of -1.0",
    ),
    row("half a billion factors", factors(500_000_000), FACTORS, "500000000"),
    row("sixteen factors, of one kind", factors(16), "0 short factors"),
    row("an embedding of another shape", shape_of("token_embd.weight", (256, 256)), "token_embd"),
    row("gains of another shape", shape_of("output_norm.weight", (64,)), "output_norm", "[64]"),
    row("no embedding", changed(lambda _, t: t.pop("token_embd.weight")), "token_embd"),
    row(
        "a block that is missing",
        all_of(changed(lambda _, t: t.pop("blk.1.attn_qkv.weight")), removed("phiquant.json")),
        "tensors",
        command=VERIFY,
        code=FAILED_VERIFICATION,
    ),
    row(
        "scales that are no numbers",
        all_of(scales_of_ones, removed("phiquant.json")),
        "tensors",
        command=VERIFY,
        code=FAILED_VERIFICATION,
    ),
    # importance matrices
    matrix("of nothing", b"", "empty file"),
    matrix("of two bytes", b"\1\0", "2 bytes"),
    matrix("of a pipe", make_pipe, "--imatrix"),
    matrix("of gigabytes", _sparse, "2,147,483,648 bytes"),
    matrix("of zeros", bytes(1 << 20), "0 entries"),
    matrix("of 0xFF", b"\xff" * (1 << 20), "-1 entries"),
    matrix(
        "of two billion entries", legacy(count=2**31 - 1) + bytes(1 << 20), "2147483647 entries"
    ),
    matrix(
        "with a name of gigabytes", struct.pack("<ii", 1, 2**31 - 1) + bytes(1 << 20), "name of"
    ),
    matrix("with a name below zero", struct.pack("<ii", 1, -5) + bytes(100), "name of -5"),
    matrix("cut short", legacy((EMBEDDING, 1, ONES))[:-40], "should follow"),
    matrix("with bytes too many", legacy((EMBEDDING, 1, ONES), tail=bytes(100)), "bytes too many"),
    matrix("with a name twice", legacy((EMBEDDING, 1, ONES), (EMBEDDING, 1, ONES)), "twice"),
    matrix("of another model", legacy(("blk.77.ffn_down.weight", 1, ONES)), "another model"),
    matrix("of other columns", legacy((EMBEDDING, 1, ONES[:100])), "100"),
    matrix("with NaN", legacy((EMBEDDING, 1, [float("nan"), *ONES[1:]])), "nan"),
    matrix("with squares below zero", legacy((EMBEDDING, 1, [-1.0, *ONES[1:]])), "-1.0"),
    matrix("with calls below zero", legacy((EMBEDDING, -1, ONES)), "-1 calls"),
    matrix("with a name that is no text", legacy((b"\xff\xfe", 1, ONES)), "another model"),
    matrix("of GGUF without sums", file([u32("k", 1)]), ".in_sum2"),
    matrix("of GGUF with sums alone", imatrix((f"{EMBEDDING}.in_sum2", (256,), ONES)), "not both"),
    matrix(
        "of GGUF with many counts",
        imatrix((f"{EMBEDDING}.in_sum2", (256,), ONES), (f"{EMBEDDING}.counts", (2,), [1, 1])),
        "2 matrices",
    ),
    matrix(
        "of GGUF with a count of NaN",
        imatrix((f"{EMBEDDING}.in_sum2", (256,), ONES), (f"{EMBEDDING}.counts", (1,), [np.nan])),
        "nan tokens",
    ),
    matrix(
        "of GGUF with a count without end",
        imatrix((f"{EMBEDDING}.in_sum2", (256,), ONES), (f"{EMBEDDING}.counts", (1,), [np.inf])),
        "inf tokens",
    ),
]
