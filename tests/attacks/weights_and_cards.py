"""Attacks by values of weights; and what is odd and harmless: cards, templates, empty weights.

What is harmless is no reason to refuse a model, but must cost little.
"""

from itertools import product

from attacks.attack import PLAN, Attack, content, fields
from attacks.checkpoint_files import DOWN, one_value, weights

NORM, HEAD = "model.norm.weight", "lm_head.weight"


def huge(target, quality, precision, name):
    command = (*PLAN, "--to", target, "--quality", quality, "--precision", precision)
    words = (name, "3e+38")

    def change(arrays):
        arrays[name].flat[7] = 3e38

    row = f"a weight of 3e38 in {name} for {target}, {quality}, {precision}"
    return Attack(row, "checkpoint", weights(change), words, command)


ATTACKS = [
    *(
        huge(target, quality, precision, DOWN)
        for target, quality, precision in product(
            ("gguf", "mlx", "onnx", "openvino"), ("fast", "balanced", "best"), ("int4", "int8")
        )
    ),
    *(huge("gguf", quality, "int4", NORM) for quality in ("balanced", "best")),
    huge("mlx", "fast", "fp16", NORM),
    huge("mlx", "fast", "fp16", DOWN),
    huge("onnx", "fast", "fp16", HEAD),
    Attack("a weight below -65504", "checkpoint", one_value(-7e4), (DOWN, "7e+04")),
]


def card(text):
    return content("README.md", text)


def template(text):
    return content("chat_template.jinja", text)


TO_ALL = ("quantize", "MODEL", "--to", "gguf,mlx,onnx", "-o", "OUT", "-q", "--json")

HARMLESS = [
    Attack(name, "checkpoint", damage, (), TO_ALL, 0)
    for name, damage in (
        ("a card of --- and 80,000 line ends", card("---" + "\n" * 80_000)),
        ("a card of 40,000 lines of ---", card("---\n" * 40_000)),
        ("a card of 100 MB of blanks", card(lambda: "---\n" + " " * 100_000_000)),
        ("a card of bytes", card(b"---\nlicense: \xff\xfe\n---\n")),
        ("a card of brackets", card("---\na: " + "[" * 30_000 + "\n---\n")),
        ("a card of lists in lists", card("---\n" + "- " * 30_000 + "\n---\n")),
        ("a card of question marks", card("---\n" + "? " * 30_000 + "\n---\n")),
        ("a card of braces", card("---\n" + "{a: " * 15_000 + "\n---\n")),
        (
            "a card of references to references",
            card("---\na: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nlicense: *c\n---\n"),
        ),
        ("a card of objects", card("---\nlicense: {a: b}\nbase_model: {c: d}\n---\n")),
        ("a card of a reference to itself", card("---\nlicense: &a [*a]\n---\n")),
        ("a card with a long name", card(f"---\nbase_model: {'a-' * 20_000}\n---\n")),
        ("a card of a licence of 60 kB", card(f"---\nlicense: {'m' * 60_000}\n---\n")),
        ("a template of 200 kB of openings", template("{%" * 100_000)),
        ("a template of 200 kB of blanks", template("{%" + " " * 200_000)),
        ("a template of comments", template("{#" * 100_000)),
        ("a template of an endless text", template("{{ '" + "\\" * 200_000)),
        ("a template of raw blocks", template("{% raw %}" * 20_000)),
        ("a template of braces", template("{" * 200_000)),
        ("a template of line ends", template("\r\n" * 100_000)),
        ("a template of tags", template("{%- x -%}" * 20_000)),
        ("an empty template", template("")),
        ("fields that no one knows", fields("config.json", x={"y": [1] * 10_000})),
        ("a length of 10^30", fields("tokenizer_config.json", model_max_length=10**30)),
    )
]
