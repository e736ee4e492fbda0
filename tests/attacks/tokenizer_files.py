"""Attacks by tokenizer.json, by the files around it, and by tokenizer.model."""

import struct

from attacks.attack import PLAN, Attack, content, edited, fields, proto
from tiny_tokenizer import as_model_file, write_tiny_tokenizer

JSON, SETTINGS, MODEL = "tokenizer.json", "tokenizer_config.json", "tokenizer.model"
GENERATION = "generation_config.json"
TO_MLX = ("plan", "MODEL", "--to", "mlx", "-q")
TO_OPENVINO = ("plan", "MODEL", "--to", "openvino", "-q")
LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}


def model(name, words, command=PLAN, **changes):
    """Other fields of the model in tokenizer.json."""
    damage = edited(JSON, lambda d: d["model"].update(changes))
    return Attack(name, "checkpoint", damage, words, command)


def top(name, words, command=PLAN, **changes):
    """Other fields of tokenizer.json."""
    return Attack(name, "checkpoint", fields(JSON, **changes), words, command)


def vocabulary(name, change, *words):
    damage = edited(JSON, lambda d: change(d["model"]["vocab"]))
    return Attack(name, "checkpoint", damage, words)


def splitting(name, expression, *words):
    step = {
        "type": "Split",
        "pattern": {"Regex": expression},
        "behavior": "Isolated",
        "invert": False,
    }
    steps = {"type": "Sequence", "pretokenizers": [step, LEVEL]}
    return top(name, words, TO_MLX, pre_tokenizer=steps)


def settings(name, words, command=PLAN, **changes):
    return Attack(name, "checkpoint", fields(SETTINGS, **changes), words, command)


def replacing(count, pattern, text):
    step = {"type": "Replace", "pattern": pattern, "content": text}
    return {"type": "Sequence", "normalizers": [step] * count}


def nested(count):
    step = LEVEL
    for _ in range(count):
        step = {"type": "Sequence", "pretokenizers": [step]}
    return step


def added(count, length=8):
    """`count` more added tokens that start alike."""

    def change(document):
        first = 1000
        document["added_tokens"] += [
            {"id": first + n, "content": "<" + "a" * length + str(n), "special": True}
            for n in range(count)
        ]

    return edited(JSON, change)


# tokenizer.model


def piece(text, score=0.0, kind=1):
    data = text if isinstance(text, bytes) else text.encode()
    return proto(1, data) + b"\x15" + struct.pack("<f", score) + proto(3, kind)


BPE = proto(3, 2)
AS_IT_IS = proto(3, 1) + proto(4, 0)


def pieces(*entries, trainer=BPE, normalizer=AS_IT_IS):
    """A model of BPE with `found`, each the bytes of a piece."""
    return b"".join(proto(1, entry) for entry in entries) + proto(2, trainer) + proto(3, normalizer)


def sentencepiece(name, data, *words):
    """`data` for tokenizer.model, alone or made from the bytes of a sound one."""

    def damage(directory):
        for file in (JSON, SETTINGS, "special_tokens_map.json"):
            (directory / file).unlink(missing_ok=True)
        write_tiny_tokenizer(directory, 512, "sentencepiece")
        as_model_file(directory)
        sound = (directory / MODEL).read_bytes()
        (directory / MODEL).write_bytes(data(sound) if callable(data) else data)

    return Attack(name, "checkpoint", damage, (MODEL, *words))


ATTACKS = [
    # tokenizer.json
    Attack(
        "a million tokens",
        "checkpoint",
        content(JSON, lambda: "{" + ",".join(f'"{n:x}":1' for n in range(1_000_000)) + "}"),
        ("memory",),
    ),
    *(
        Attack(f"tokenizer.json of {text[:12]!r}", "checkpoint", content(JSON, text), (JSON,))
        for text in (
            "",
            "[]",
            "{}",
            "{",
            "7",
            '"x"',
            '{"model": 1}',
            '{"model": {}}',
            "[" * 100_000,
        )
    ),
    vocabulary("a token id of 10^8", lambda v: v.update(a=10**8), "100000000"),
    vocabulary("a token id of 10^30", lambda v: v.update(a=10**30), JSON),
    vocabulary("a token id below zero", lambda v: v.update(a=-1), JSON),
    vocabulary("a token id of a text", lambda v: v.update(a="1"), JSON),
    vocabulary("a token id of a list", lambda v: v.update(a=[1]), JSON),
    vocabulary("a token id that is real", lambda v: v.update(a=1.5), JSON),
    vocabulary("a token id that is true", lambda v: v.update(a=True), JSON),
    vocabulary("two tokens of one id", lambda v: v.update(twin=v["a"]), "'twin'"),
    vocabulary("one piece of 600 kB", lambda v: v.update({"a" * 600_000: 505}), "600,000"),
    vocabulary(
        "pieces of ten megabytes",
        lambda v: v.update({f"{n:01000d}": 600 + n for n in range(10_000)}),
        "characters",
    ),
    model("a vocabulary that is a list", (JSON,), vocab=["a"]),
    model("no vocabulary", (JSON,), vocab={}),
    model("a Unigram model", ("Unigram",), type="Unigram"),
    model("a model whose type is a list", (JSON,), type=["BPE"]),
    model("merges that are an object", (JSON,), merges={"a": "b"}),
    model("merges of numbers", (JSON,), merges=[[1, 2]]),
    model("merges of three", (JSON,), merges=[["a", "b", "c"]]),
    model("merges of one word", (JSON,), merges=["ab"]),
    model("merges of what is no token", (JSON,), merges=[["no", "token"]]),
    model("a million merges and more", ("merges",), merges=["a b"] * 1_000_001),
    model("merges left out by chance", ("dropout",), dropout=0.5),
    model("an unknown token of a list", (JSON,), unk_token=["a"]),
    model("a byte fallback of a text", (JSON,), byte_fallback="yes"),
    model("a prefix of a number", (JSON,), continuing_subword_prefix=7),
    model(
        "a prefix that is longer than pieces",
        ("continuing_subword_prefix",),
        TO_MLX,
        continuing_subword_prefix="x" * 2000,
    ),
    model("an end of words", ("end_of_word_suffix",), TO_MLX, end_of_word_suffix="</w>"),
    top("added tokens that are an object", ("added_tokens",), added_tokens={"a": 1}),
    top("an added token without a text", ("added_tokens",), added_tokens=[{"id": 1}]),
    top(
        "an added token of a text as id",
        ("added_tokens",),
        added_tokens=[{"id": "1", "content": "a"}],
    ),
    top(
        "an added token of no text", ("without a text",), added_tokens=[{"id": 500, "content": ""}]
    ),
    Attack("10,000 added tokens", "checkpoint", added(10_000), ("added tokens",)),
    Attack("added tokens of megabytes", "checkpoint", added(5000, 900), ("characters",)),
    splitting("an expression of exponential time", r"(a+)+b|.", "(a+)+b", "regular expression"),
    splitting(
        "an expression of cubic time", r"(?:\w| )*(?:\w| )*(?:\w| )*#|.", "regular expression"
    ),
    splitting("an expression that refers back", r"(\w+)\1+", "regular expression"),
    splitting("an expression that is none", "(", "regular expression"),
    splitting("an expression of a number", 7, "regular expression"),
    top("a step without a type", (JSON,), pre_tokenizer={}),
    top("a step that is a list", (JSON,), pre_tokenizer=[LEVEL]),
    top("a step of an unknown type", (JSON,), TO_MLX, pre_tokenizer={"type": "Unheard"}),
    top("a sequence without steps", (JSON,), pre_tokenizer={"type": "Sequence"}),
    top("sequences within one another", ("deep",), pre_tokenizer=nested(100)),
    top(
        "a thousand steps",
        ("1000 steps",),
        TO_MLX,
        pre_tokenizer={"type": "Sequence", "pretokenizers": [LEVEL] * 1000},
    ),
    top(
        "replacements that double a text thirty times",
        ("something longer",),
        TO_MLX,
        normalizer=replacing(30, {"String": "e"}, "ee"),
    ),
    top(
        "a replacement of megabytes",
        ("something longer",),
        TO_MLX,
        normalizer=replacing(1, {"String": " "}, "x" * 3_000_000),
    ),
    top(
        "a replacement of nothing",
        ("replacement of ''",),
        TO_MLX,
        normalizer=replacing(1, {"String": ""}, "x"),
    ),
    top(
        "a replacement by an expression",
        ("regular expression",),
        TO_MLX,
        normalizer=replacing(1, {"Regex": "(x+x+)+y"}, ""),
    ),
    top(
        "something long in front of every text",
        ("16 characters",),
        TO_MLX,
        normalizer={"type": "Prepend", "prepend": "x" * 100_000},
    ),
    top(
        "a compiled table of characters",
        ("compiled table",),
        TO_MLX,
        normalizer={"type": "Precompiled", "precompiled_charsmap": "AAAA"},
    ),
    top("a normalizer that is a text", (JSON,), normalizer="NFC"),
    top("a decoder of an unknown type", (JSON,), decoder={"type": "Unheard"}),
    top("a decoder that is a number", (JSON,), decoder=7),
    top("a processor of nothing", (JSON,), post_processor={"type": "TemplateProcessing"}),
    top(
        "a processor of a text",
        (JSON,),
        post_processor={
            "type": "TemplateProcessing",
            "single": "x",
            "pair": [],
            "special_tokens": {},
        },
    ),
    Attack(
        "a lone surrogate in a token",
        "checkpoint",
        content(JSON, '{"a": "\\ud83d"}'),
        ("surrogate",),
    ),
    # the files around it
    settings("a template of a number", ("chat_template",), chat_template=7),
    settings("templates without a name", ("chat_template",), chat_template=[{"template": "a"}]),
    settings("templates of lists", ("chat_template",), chat_template=[["a", "b"]]),
    settings("a template of 300 kB", ("chat templates",), chat_template="x" * 300_000),
    settings(
        "a thousand templates",
        ("chat templates",),
        chat_template=[{"name": str(n), "template": "x"} for n in range(1000)],
    ),
    settings("an end that is no token", ("<|none|>",), eos_token="<|none|>"),
    settings("an end that is a number", ("eos_token",), eos_token=7),
    settings("an end that is an empty object", ("eos_token",), eos_token={}),
    settings("an end whose text is a list", ("eos_token",), eos_token={"content": ["a"]}),
    settings("a flag of a text", ("add_bos_token",), add_bos_token="no"),
    settings(
        "added tokens by no number", ("added_tokens_decoder",), added_tokens_decoder={"x": {}}
    ),
    settings(
        "an added token of 10^9",
        ("1000000000",),
        added_tokens_decoder={"1000000000": {"content": "<|far|>"}},
    ),
    settings(
        "an added token of thousands of digits",
        ("added_tokens_decoder",),
        added_tokens_decoder={"9" * 5000: {"content": "<|far|>"}},
    ),
    settings("added tokens that are a list", ("added_tokens_decoder",), added_tokens_decoder=[1]),
    settings("a class of a list", ("tokenizer_class",), tokenizer_class=["a"]),
    settings("a length of a text", ("model_max_length",), model_max_length="long"),
    Attack(
        "ends of texts", "checkpoint", fields(GENERATION, eos_token_id=["a"]), ("eos_token_id",)
    ),
    Attack(
        "an end of 10^30", "checkpoint", fields(GENERATION, eos_token_id=10**30), ("eos_token_id",)
    ),
    Attack(
        "an end below zero", "checkpoint", fields(GENERATION, eos_token_id=-5), ("eos_token_id",)
    ),
    Attack(
        "a temperature of a text",
        "checkpoint",
        fields(GENERATION, temperature="hot"),
        ("temperature",),
    ),
    Attack(
        "an added token of 10^9 in a file of its own",
        "checkpoint",
        content("added_tokens.json", '{"<|far|>": 1000000000}'),
        ("1000000000",),
    ),
    Attack(
        "added tokens of lists",
        "checkpoint",
        content("added_tokens.json", '{"a": [1]}'),
        ("added_tokens.json",),
    ),
    Attack(
        "a template that is no text",
        "checkpoint",
        content("chat_template.jinja", b"\xff"),
        ("chat_template.jinja",),
    ),
    Attack(
        "a role of a list",
        "checkpoint",
        content("special_tokens_map.json", '{"eos_token": [1]}'),
        ("eos_token",),
    ),
    Attack("neither of the two", "checkpoint", lambda d: (d / JSON).unlink(), (JSON, MODEL)),
    # tokenizer.model
    sentencepiece("nothing in tokenizer.model", b"", "no pieces"),
    sentencepiece("a megabyte of 0xFF", b"\xff" * (1 << 20), "without an end"),
    sentencepiece("two megabytes of 0x0A", b"\x0a" * (2 << 20), MODEL),
    sentencepiece("two megabytes of zeros", bytes(2 << 20), MODEL),
    sentencepiece("millions of empty pieces", lambda _: b"\x0a\x00" * 2_000_000, "300,000 fields"),
    sentencepiece("a length beyond the file", b"\x0a\xff\xff\xff\xff\x7f", "bytes expected"),
    sentencepiece("a length of 2^63", b"\x0a" + b"\xff" * 9 + b"\x01", "bytes expected"),
    sentencepiece("half of a model", lambda sound: sound[: len(sound) // 2], MODEL),
    sentencepiece("a group", b"\x0b\x0c", "wire type 3"),
    sentencepiece("a number for a piece", proto(1, 7), "a number"),
    sentencepiece("a piece of 600 kB", pieces(piece("a" * 600_000)), "600,000"),
    sentencepiece("a piece without a text", pieces(piece("")), "''"),
    sentencepiece("a piece that is no text", pieces(piece(b"\xff")), "codec"),
    sentencepiece("a piece twice", pieces(piece("a"), piece("a")), "'a' 2 times"),
    sentencepiece("a score that is no number", pieces(piece("a", float("nan"))), "nan"),
    sentencepiece("a score without end", pieces(piece("a", float("inf"))), "inf"),
    sentencepiece("a piece of an unknown type", pieces(piece("a", kind=77)), "77"),
    sentencepiece("a Unigram model", pieces(piece("a"), trainer=proto(3, 1)), "Unigram"),
    sentencepiece(
        "a model that normalizes",
        pieces(piece("a"), normalizer=proto(2, b"x") + proto(4, 0)),
        "normalizes",
    ),
    sentencepiece("a model without settings", proto(1, piece("a")), "BPE"),
    sentencepiece(
        "pieces that all make one another",
        lambda sound: pieces(
            *(piece(format(n, "b")[1:]) for n in range(2, 1 << 17)),
        ),
        "merges",
    ),
    sentencepiece(
        "2000 settings",
        pieces(piece("a"), trainer=proto(3, 2) * 2000),
        "1,000 fields",
    ),
]
