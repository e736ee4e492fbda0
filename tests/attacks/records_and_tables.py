"""Attacks by phiquant.json, README.md, tables of devices, and texts."""

from attacks.attack import (
    INSPECT,
    Attack,
    content,
    edited,
    fields,
    link_out,
    make_pipe,
    pipe,
    sparse,
    without,
)

RECORD = "phiquant.json"
RECOMMEND = (
    "recommend", "Phi-4-mini-instruct", "--device", "raspberry-pi-5-8gb", "--measured", "MODEL",
)  # fmt: skip
DEVICES = ("devices", "--file", "HERE/table.toml")
BALANCED = ("plan", "MODEL", "--quality", "balanced", "--calibration", "HERE/text.jsonl", "-q")
BOARD = """
[board]
title = "Board"
class = "iot"
memory_gib = 8
usable_gib = 6
bandwidth_gbs = 10
engines = ["gguf-cpu-arm"]
source = "its label"
"""


def record(name, damage, *words, command=INSPECT):
    return Attack(f"record {name}", "gguf", damage, (RECORD, *words), command)


def beside(file, data):
    """A file beside the model, of bytes, text, or by a function of its path."""

    def write(directory):
        place = directory.parent / file
        if callable(data):
            data(place)
        else:
            place.write_bytes(data.encode() if isinstance(data, str) else data)

    return write


def table(name, data, *words):
    return Attack(f"table {name}", "checkpoint", beside("table.toml", data), words, DEVICES)


def board(name, *words, **lines):
    """The board with other lines, TOML by key."""
    kept = [line for line in BOARD.strip().splitlines() if line.partition(" ")[0] not in lines]
    changed = [f"{key} = {value}" for key, value in lines.items() if value is not None]
    return table(name, "\n".join([*kept, *changed]), *words)


def text(name, data, *words):
    return Attack(f"text {name}", "checkpoint", beside("text.jsonl", data), words, BALANCED)


def huge(size):
    def write(place):
        with place.open("wb") as file:
            file.truncate(size)

    return write


def alike(count):
    devices = [BOARD]
    devices += [f'[d{n}]\nlike = "{"board" if n == 0 else f"d{n - 1}"}"' for n in range(count)]
    return "\n".join(devices)


ENGINE = """
[engine.mine]
target = "gguf"
provider = "cpu"
computes = ["int4"]
efficiency = 0.5
basis = "a guess"
[engine.mine.types]
int4 = ["Q4_K_M"]
"""


def engine(name, old, new, *words):
    return table(f"engine {name}", ENGINE.replace(old, new) + BOARD, *words)


ATTACKS = [
    # phiquant.json
    record("of a pipe", pipe(RECORD), "pipe"),
    record("by a link out", link_out(RECORD), "outside"),
    record("of 2 GB of nothing", sparse(RECORD), "bytes"),
    record("of nothing", content(RECORD, ""), "not valid JSON"),
    record("of a list", content(RECORD, "[]"), "JSON object"),
    record("of brackets", content(RECORD, "[" * 100_000), "deep"),
    record("with a number of 5000 digits", content(RECORD, '{"a":' + "9" * 5000 + "}"), "digits"),
    record("of a schema to come", fields(RECORD, schema=99), "99"),
    record("of a schema of a list", fields(RECORD, schema=[1]), "schema"),
    record("with hashes of another kind", fields(RECORD, hash="MD5"), "MD5"),
    record("without a plan", without(RECORD, "plan"), "plan"),
    record("with a plan of a list", fields(RECORD, plan=[]), "plan"),
    record("with rows of numbers", edited(RECORD, lambda d: d["plan"].update(rows=[7])), "plan"),
    record(
        "with bytes of a text", edited(RECORD, lambda d: d["plan"].update(nbytes="many")), "plan"
    ),
    record("with notes of a text", edited(RECORD, lambda d: d["plan"].update(notes="x")), "plan"),
    record("with files elsewhere", fields(RECORD, files={"../../etc/passwd": "00"}), "files"),
    record("with files of no name", fields(RECORD, files={"..": "00"}), "files"),
    record("with a null character", fields(RECORD, files={"a\0b": "00"}), "files"),
    record("with hashes of numbers", fields(RECORD, files={"x": 7}), "files"),
    record("with a verification of a list", fields(RECORD, verification=[1]), "verification"),
    *(
        Attack(
            f"a measured loss of {value!r}",
            "gguf",
            fields(RECORD, verification={"figures": {"mean": {"value": value}}}),
            ("record of a verification",),
            RECOMMEND,
        )
        for value in ("nan", "x", None, [1], -1, True)
    ),
    Attack(
        "a record that phiquant never wrote, to be recommended by",
        "gguf",
        content(RECORD, "{}"),
        (RECORD, "schema"),
        RECOMMEND,
    ),
    # devices
    table("of nothing that is TOML", "[", "not valid TOML"),
    table("of bytes", b"\xff", "UTF-8"),
    table("of a pipe", make_pipe, "pipe"),
    table("of a directory", lambda place: place.mkdir(), "directory"),
    table("of 2 GB of nothing", huge(2 << 30), "bytes"),
    table("of brackets", "a = " + "[" * 50_000, "deep"),
    table("of tables within one another", "[" + "a." * 100_000 + "a]", "64 dots"),
    table("of keys within one another", "a." * 100_000 + "a = 1", "64 dots"),
    table("with a number of 5000 digits", "a = " + "9" * 5000, "TOML"),
    table("with a number of 100 digits", f"[board]\nmemory_gib = {'9' * 100}", "64 digits"),
    table("with a real beyond all numbers", "[board]\nmemory_gib = 1e999", "inf"),
    table("with a key twice", "a = 1\na = 2", "TOML"),
    table("with an impossible date", "a = 2024-02-31", "TOML"),
    table("of a number", "board = 7", "table [board]"),
    table("of lists of tables", "[[board]]\ntitle = 'x'", "table [board]"),
    table("of a thousand alike", alike(1000), "more than 8 times over"),
    table("of two that are like each other", '[a]\nlike = "b"\n[b]\nlike = "a"', "more than 8"),
    table("like a number", "[a]\nlike = 7", "no device that is known"),
    table("of engines that are a number", "engine = 7\n" + BOARD, "table of engines"),
    board("without memory", "memory_gib", memory_gib=None),
    board("with memory of nothing", "positive number", memory_gib=0),
    board("with memory below zero", "positive number", memory_gib=-1),
    board("with memory of a text", "memory_gib", memory_gib='"8"'),
    board("with memory that is true", "memory_gib", memory_gib="true"),
    board("with more use than memory", "usable_gib", usable_gib=9),
    board("with engines of lists", "engines", engines='[["gguf-cpu-arm"]]'),
    board("with engines of tables", "engines", engines="[{a = 1}]"),
    board("with no engines", "engines", engines="[]"),
    board("with engines of a text", "engines", engines='"gguf-cpu-arm"'),
    board("of an unknown class", "class", **{"class": '"toaster"'}),
    board("of a class of a list", "class", **{"class": '["iot"]'}),
    board("with a field more", "colour", colour='"red"'),
    board("with refusals of numbers", "engine", refuses="[7]"),
    engine(
        "of precisions of lists", '["int4"]\nefficiency', '[["int4"]]\nefficiency', "precisions"
    ),
    engine("of types of a text", '["Q4_K_M"]', '"Q4_K_M"', "types"),
    engine("of an efficiency of 7", "0.5", "7", "efficiency"),
    engine("of a context below zero", "0.5", "0.5\nmost_context = -1", "most_context"),
    engine("of a context of a text", "0.5", '0.5\nmost_context = "long"', "most_context"),
    engine("of no target", 'target = "gguf"\n', "", "target"),
    Attack(
        "a device of a target that is unknown",
        "checkpoint",
        beside(
            "table.toml",
            (ENGINE + BOARD).replace('"gguf"', '"toaster"').replace("gguf-cpu-arm", "mine"),
        ),
        ("toaster",),
        ("recommend", "MODEL", "--device", "HERE/table.toml"),
    ),
    # texts to calibrate on
    text("of a pipe", make_pipe, "--calibration"),
    text("of nothing", "", "found 0"),
    text("of 2 GB of nothing", huge(2 << 30), "2,147,483,648 bytes"),
    text("of 30 MB of zeros", lambda place: place.write_bytes(bytes(30 << 20)), "line 1"),
    text("of bytes", b'{"text": "\xff"}', "UTF-8"),
    text("of no JSON", "x\n", "line 1"),
    text("of a list", '{"text": "a"}\n[]\n', "line 2"),
    text("of a number", "7", "line 1"),
    text("of a text of a number", '{"text": 7}', "line 1"),
    text("of brackets", "[" * 100_000, "deep"),
    text("of a number of 5000 digits", '{"text": ' + "9" * 5000 + "}", "digits"),
    text("of half of a surrogate pair", '{"text": "\\ud800"}', "surrogate"),
    text("of NaN", '{"text": NaN}', "NaN"),
    text("of messages that are a text", '{"messages": "hello"}', "line 1"),
    text("of messages of numbers", '{"messages": [7]}', "line 1"),
    text("of messages without a role", '{"messages": [{"content": "a"}]}', "role"),
    text("of messages of a role of a list", '{"messages": [{"role": ["a"]}]}', "role"),
    text("of a content of a list", '{"messages": [{"role": "user", "content": ["a"]}]}', "content"),
    text(
        "of ten million line ends", lambda place: place.write_bytes(b"\n" * 10_000_000), "found 0"
    ),
    text(
        "of millions of empty objects",
        lambda place: place.write_bytes(b"{}\n" * 2_000_000),
        "line 1",
    ),
    Attack(
        "a text to measure on that is a pipe",
        "gguf",
        beside("text.txt", make_pipe),
        ("pipe",),
        ("verify", "MODEL", "--against", "SOUND", "--text", "HERE/text.txt", "-q"),
    ),
    Attack(
        "a text to measure on of one letter",
        "gguf",
        beside("text.txt", "a"),
        ("tokens",),
        ("verify", "MODEL", "--against", "SOUND", "--text", "HERE/text.txt", "-q"),
    ),
    Attack(
        "a text to measure on of bytes",
        "gguf",
        beside("text.txt", b"\xff\xfe"),
        ("UTF-8",),
        ("verify", "MODEL", "--against", "SOUND", "--text", "HERE/text.txt", "-q"),
    ),
    Attack(
        "a wheel that is a pipe",
        "checkpoint",
        beside("demo.whl", make_pipe),
        ("pipe",),
        ("demo", "--wheel", "HERE/demo.whl", "-o", "OUT"),
    ),
    Attack(
        "a wheel of 2 GB of nothing",
        "checkpoint",
        beside("demo.whl", huge(2 << 30)),
        ("bytes",),
        ("demo", "--wheel", "HERE/demo.whl", "-o", "OUT"),
    ),
]
