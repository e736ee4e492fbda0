"""Attacks by OpenVINO artifacts: the graph's text and its constants."""

import re

from attacks.attack import (
    FAILED_VERIFICATION,
    INSPECT,
    VERIFY,
    Attack,
    bytes_of,
    content,
    fields,
    folder,
    link_out,
    pipe,
    sparse,
)

GRAPH, DATA = "openvino_model.xml", "openvino_model.bin"
GAINS = "self.model.norm.weight"


def row(name, damage, *words, command=INSPECT, code=2):
    return Attack(name, "openvino", damage, words, command, code)


def text(name, change, *words):
    """The sound text after `change`, or another."""
    if callable(change):
        damage = bytes_of(GRAPH, lambda data: change(data.decode()).encode())
    else:
        damage = content(GRAPH, change)
    return row(name, damage, *words)


def data_of(constant, **changes):
    """Other attributes for the place of a constant."""

    def change(whole):
        def other(match):
            line = match[0]
            for key, value in changes.items():
                line = re.sub(f' {key}="[^"]*"', f' {key}="{value}"', line, count=1)
            return line

        place = rf'name="{re.escape(constant)}" type="Const"[^>]*>\s*<data [^>]*/>'
        return re.sub(place, other, whole, count=1)

    return change


def net(*layers, edges=()):
    """A graph by hand, with all that a model's name needs."""
    lines = "".join(f'<edge from-layer="{a}" to-layer="{b}" />' for a, b in edges)
    return f"<net><layers>{''.join(layers)}</layers><edges>{lines}</edges></net>"


def layer(number, kind, name, inner=""):
    return f'<layer id="{number}" name="{name}" type="{kind}" version="opset1">{inner}</layer>'


PLACE = '<data element_type="f32" shape="4" offset="0" size="16" />'


def converts(count, edges):
    constant = layer(0, "Const", "c", PLACE)
    rest = [layer(number, "Convert", f"v{number}") for number in range(1, count + 1)]
    return net(constant, *rest, edges=edges)


DOUBLED = [(a, a + 1) for a in range(58)] * 2
CYCLE = [(0, 1), (1, 2), (2, 1)]
MISSING = "is missing from"

ATTACKS = [
    row("a pipe for the graph", pipe(GRAPH), GRAPH, "pipe"),
    row("a pipe for the data", pipe(DATA), DATA, "pipe"),
    row("a pipe for config.json", pipe("config.json"), "config.json", "pipe"),
    row("a directory for the graph", folder(GRAPH), GRAPH, "directory"),
    row("a link out for the graph", link_out(GRAPH), GRAPH, "outside"),
    row("a link out for the data", link_out(DATA), DATA, "outside"),
    row("2 GB of nothing for the graph", sparse(GRAPH), GRAPH, "bytes"),
    row("no data", lambda d: (d / DATA).unlink(), DATA, "missing"),
    row("no bytes of data", content(DATA, b""), "ends beyond"),
    row("half of the data", content(DATA, bytes(1000)), "ends beyond"),
    text("nothing in the graph", "", "no element found"),
    text("text that is no XML", "{}", "not well-formed"),
    text("half of a text", lambda t: t[: len(t) // 2], GRAPH),
    text("bytes that are no text", b"<net>\xff\xfe</net>", "invalid token"),
    text("an unknown encoding", '<?xml version="1.0" encoding="x-none"?><net/>', "encoding"),
    text(
        "a billion laughs",
        '<!DOCTYPE net [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">]><net>&b;</net>',
        "document type",
    ),
    text(
        "an entity of a file",
        '<!DOCTYPE net [<!ENTITY a SYSTEM "file:///etc/passwd">]><net>&a;</net>',
        "document type",
    ),
    text("elements within one another", "<net>" + "<a>" * 100_000, "within one another"),
    text("two million elements", lambda _: "<net>" + "<a/>" * 2_000_000 + "</net>", "elements"),
    text("an attribute of 30 MB", lambda _: '<net a="' + "x" * 30_000_000 + '"/>', MISSING),
    text("an attribute of 200 MB", lambda _: '<net a="' + "x" * 200_000_000 + '"/>', "bytes"),
    text(
        "a million attributes",
        lambda _: "<net " + " ".join(f'a{n}=""' for n in range(300_000)) + "/>",
        MISSING,
    ),
    text("no layers", "<net/>", MISSING),
    text("another root", "<html/>", MISSING),
    text("58 doubled edges", converts(58, DOUBLED), MISSING),
    text("a cycle", converts(2, CYCLE), MISSING),
    text(
        "30,000 conversions in a row",
        converts(30_000, [(a, a + 1) for a in range(30_000)]),
        MISSING,
    ),
    text("an edge that leads nowhere", converts(1, [(0, 77)]), "layer 77"),
    text(
        "an edge without an end", lambda t: t.replace(' to-layer="', ' two-layer="', 1), "to-layer"
    ),
    text(
        "an edge without a beginning", lambda t: t.replace(' from-layer="', ' x="', 1), "from-layer"
    ),
    text("two layers of one number", net(layer(0, "A", "a"), layer(0, "A", "b")), "number 0"),
    text(
        "a layer without a number", '<net><layers><layer name="a" type="b"/></layers></net>', "id"
    ),
    text("a layer without a name", '<net><layers><layer id="0" type="b"/></layers></net>', "name"),
    text("a constant without a place", net(layer(0, "Const", "c")), "has no data"),
    text("a place without a size", lambda t: t.replace(' size="', ' sighs="', 1), "size"),
    text("an offset below zero", data_of(GAINS, offset=-64), "-64"),
    text("an offset of a word", data_of(GAINS, offset="zero"), "zero"),
    text("an offset of thousands of digits", data_of(GAINS, offset="9" * 5000), "999"),
    text("an offset beyond the data", data_of(GAINS, offset=1 << 40), "ends beyond"),
    text("a size beyond the data", data_of(GAINS, size=1 << 61), "ends beyond"),
    text("a size of nothing", data_of(GAINS, size=0), "model.norm.weight"),
    text("a shape of 0", data_of(GAINS, shape="1,1,0"), "model.norm.weight"),
    text("a shape below zero", data_of(GAINS, shape="1,1,-128"), "-128"),
    text("a shape of words", data_of(GAINS, shape="1,1,many"), "many"),
    text(
        "a shape that overflows", data_of(GAINS, shape="4611686018427387903,4"), "model.norm.weight"
    ),
    text(
        "a shape of a million dimensions",
        data_of(GAINS, shape="1," * 1_000_000 + "1"),
        "dimensions",
    ),
    text("a shape of nothing", data_of(GAINS, shape=""), "model.norm.weight"),
    text("an unknown element type", data_of(GAINS, element_type="f64"), "'f64'"),
    text(
        "an element type of megabytes", data_of(GAINS, element_type="f" * 3_000_000), "model.norm"
    ),
    text(
        "scales of nothing",
        data_of("self.model.layers.0.self_attn.o_proj.weight/scale", shape="0", size=0),
        "0 scales",
    ),
    text(
        "scales of another type",
        data_of("self.model.layers.0.self_attn.o_proj.weight/scale", element_type="i8"),
        "o_proj",
    ),
    text(
        "weights of another type",
        data_of("self.model.layers.0.self_attn.o_proj.weight", element_type="f32"),
        "o_proj",
    ),
    text(
        "zero points of another shape",
        data_of("self.model.embed_tokens.weight/zero_point", shape="256,1", size=256),
        "zero points",
    ),
    text("no embedding", lambda t: t.replace("self.model.embed_tokens", "self.x"), "embed_tokens"),
    row("a config of nothing", content("config.json", "{}"), "Phi3ForCausalLM"),
    row("a config of more layers", fields("config.json", num_hidden_layers=3), "layers.2"),
    row("a config of other heads", fields("config.json", num_attention_heads=8), "qkv"),
    row(
        "a config of ten thousand layers",
        fields("config.json", num_hidden_layers=10_000),
        "layers.2",
    ),
    row("no config", lambda d: (d / "config.json").unlink(), "config.json"),
    row(
        "a pipe that the runtime would open",
        pipe("openvino_tokenizer.xml"),
        "openvino_tokenizer.xml",
        "pipe",
        command=VERIFY,
    ),
    row(
        "a link that the runtime would follow",
        link_out("tokenizer_config.json"),
        "tokenizer_config.json",
        "outside",
        command=VERIFY,
    ),
    row(
        "a graph that cannot be read, to be verified",
        content(GRAPH, "<net/>"),
        "openvino_model.xml",
        command=VERIFY,
        code=FAILED_VERIFICATION,
    ),
]
