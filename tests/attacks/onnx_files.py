"""Attacks by ONNX artifacts: graphs, their tensors, genai_config.json."""

import json
from itertools import pairwise

import onnx
from onnx import AttributeProto, TensorProto, helper

from attacks.attack import INSPECT, Attack, content, edited, fields, link_out, pipe, proto, sparse

GRAPH, DATA, CONFIG = "model.onnx", "model.onnx.data", "genai_config.json"


def row(name, damage, *words):
    return Attack(name, "onnx", damage, words, INSPECT)


def graph(name, change, *words):
    """The sound graph after `change`, a function of the parsed model."""

    def write(directory):
        model = onnx.load(directory / GRAPH, load_external_data=False)
        change(model.graph)
        (directory / GRAPH).write_bytes(model.SerializeToString())

    return row(name, write, *words)


def model_of(*fields_of_graph):
    """A model whose graph has these fields, as bytes."""
    return proto(1, 10) + proto(7, b"".join(fields_of_graph))


def node_of(network, name):
    return next(node for node in network.node if node.name == name)


def product(network):
    return next(node for node in network.node if node.op_type == "MatMulNBits")


def attribute(network, name):
    return next(item for item in product(network).attribute if item.name == name)


def tensor(network, ending):
    return next(item for item in network.initializer if item.name.endswith(ending))


def external(network, key, value):
    stored = tensor(network, "norm.weight")
    for entry in stored.external_data:
        if entry.key == key:
            entry.value = value


def cycle(network):
    """Casts in front of a product that feed one another."""
    node = next(item for item in network.node if item.name.startswith("/model/embed_tokens/"))
    del node.attribute[:]
    node.op_type, node.domain = "Gather", ""
    first = helper.make_node("Cast", ["b"], ["a"], to=1)
    second = helper.make_node("Cast", ["a"], ["b"], to=1)
    node.input[0] = "a"
    network.node.insert(0, first)
    network.node.insert(0, second)


def chain(network):
    node = next(item for item in network.node if item.name.startswith("/model/embed_tokens/"))
    node.op_type, node.domain = "Gather", ""
    names = [node.input[0], *(f"c{number}" for number in range(1, 2001))]
    node.input[0] = names[-1]
    for given, made in reversed(list(pairwise(names))):
        network.node.insert(0, helper.make_node("Cast", [given], [made], to=1))


def retyped(kind):
    def change(network):
        tensor(network, "norm.weight").data_type = kind

    return change


def without_inputs(network):
    del product(network).input[1:]


def one_input(network):
    del product(network).input[2:]


def constant_without_value(network):
    product(network).input[1] = "nothing"
    network.node.insert(0, helper.make_node("Constant", [], ["nothing"], value_float=1.0))


def text_attribute(network):
    setting = attribute(network, "block_size")
    setting.type, setting.s = AttributeProto.STRING, b"32"
    setting.ClearField("i")


def tensor_attribute(network):
    setting = attribute(network, "bits")
    setting.type = AttributeProto.TENSOR
    setting.t.CopyFrom(helper.make_tensor("x", TensorProto.FLOAT, [1], [1.0]))


def set_attribute(name, value):
    def change(network):
        attribute(network, name).i = value

    return change


def shape_of(ending, *dims):
    def change(network):
        stored = tensor(network, ending)
        del stored.dims[:]
        stored.dims.extend(dims)

    return change


def inline(ending, data):
    """A tensor whose bytes are in the graph, and too few."""

    def change(network):
        stored = tensor(network, ending)
        stored.ClearField("external_data")
        stored.data_location = TensorProto.DEFAULT
        stored.raw_data = data

    return change


def metadata(text):
    def write(directory):
        model = onnx.load(directory / GRAPH, load_external_data=False)
        for entry in model.metadata_props:
            if entry.key == "phiquant.architecture":
                entry.value = text
        (directory / GRAPH).write_bytes(model.SerializeToString())

    return write


def stated(change):
    def write(directory):
        model = onnx.load(directory / GRAPH, load_external_data=False)
        for entry in model.metadata_props:
            if entry.key == "phiquant.architecture":
                document = json.loads(entry.value)
                change(document)
                entry.value = json.dumps(document)
        (directory / GRAPH).write_bytes(model.SerializeToString())

    return write


def decoder(name, words, **changes):
    return row(name, edited(CONFIG, lambda d: d["model"]["decoder"].update(changes)), *words)


def genai(name, words, **changes):
    return row(name, edited(CONFIG, lambda d: d["model"].update(changes)), *words)


def deep_graph(depth):
    inner = b""
    for _ in range(depth):
        inner = proto(1, proto(5, proto(6, inner)))
    return model_of(inner)


ATTACKS = [
    row("a pipe for genai_config.json", pipe(CONFIG), CONFIG, "pipe"),
    row("a pipe for the graph", pipe(GRAPH), GRAPH, "pipe"),
    row("a pipe for the data", pipe(DATA), DATA, "pipe"),
    row("a link out for the graph", link_out(GRAPH), GRAPH, "outside"),
    row("a link out for the data", link_out(DATA), DATA, "outside"),
    row("a link out for genai_config.json", link_out(CONFIG), CONFIG, "outside"),
    row("2 GB of nothing for genai_config.json", sparse(CONFIG), CONFIG, "bytes"),
    row("2 GB of nothing for the graph", sparse(GRAPH), GRAPH, "bytes"),
    row("no data", lambda d: (d / DATA).unlink(), DATA, "missing"),
    row(
        "half of the data", lambda d: (d / DATA).write_bytes(bytes(1000)), DATA, "ends at byte 1000"
    ),
    row("nothing in genai_config.json", content(CONFIG, ""), CONFIG),
    row("a list in genai_config.json", content(CONFIG, "[]"), CONFIG),
    row("a model that is a list", fields(CONFIG, model=[]), "model in genai_config.json"),
    genai("a model of another type", ("'llama'",), type="llama"),
    genai("a model whose type is a list", ("phi3",), type=["phi3"]),
    genai("a vocabulary of nothing", ("vocab_size",), vocab_size=0),
    genai("a vocabulary of 10^30", ("tokens in its vocabulary",), vocab_size=10**30),
    genai("a context of a text", ("context_length",), context_length="long"),
    genai("a decoder that is a text", ("decoder",), decoder="model.onnx"),
    decoder("a graph elsewhere", ("outside",), filename="../model.onnx"),
    decoder("a graph of a number", ("outside",), filename=7),
    decoder("a graph with a null character", ("outside",), filename="a\0b"),
    decoder("a graph that is not there", ("none.onnx", "none"), filename="none.onnx"),
    decoder("a graph of no name", ("outside",), filename=".."),
    decoder("two billion layers", ("2147483647",), num_hidden_layers=2**31 - 1),
    decoder("layers that are not there", ("model.layers.2",), num_hidden_layers=9999),
    decoder("true layers", ("num_hidden_layers",), num_hidden_layers=True),
    decoder("heads that cannot share", ("3 key-value heads",), num_key_value_heads=3),
    decoder("a head of another size", ("model.layers.0",), head_size=64),
    decoder("an odd head", ("32 rotary dimensions",), head_size=31),
    row("nothing in the graph", content(GRAPH, b""), "no embedding"),
    row("a graph of 0xFF", content(GRAPH, b"\xff" * (1 << 20)), "without an end"),
    row("a graph of zeros", content(GRAPH, bytes(1 << 20)), GRAPH),
    row(
        "millions of empty nodes",
        content(GRAPH, lambda: model_of(b"\x0a\x00" * 4_000_000)),
        "nodes",
    ),
    row(
        "millions of empty tensors",
        content(GRAPH, lambda: model_of(b"\x2a\x00" * 4_000_000)),
        "nodes",
    ),
    row("millions of values", content(GRAPH, lambda: model_of(b"\x6a\x00" * 4_000_000)), "nodes"),
    row(
        "millions of inputs",
        content(GRAPH, lambda: model_of(proto(1, b"\x0a\x00" * 4_000_000))),
        "fields",
    ),
    row(
        "60 MB of one text",
        content(GRAPH, lambda: model_of(proto(10, b"x" * 60_000_000))),
        "8,388,608 bytes",
    ),
    row(
        "60 million packed numbers",
        content(GRAPH, lambda: model_of(proto(1, proto(5, proto(8, b"\x01" * 60_000_000))))),
        "8,388,608 bytes",
    ),
    row("graphs within one another", content(GRAPH, deep_graph(50)), "deep"),
    row("functions of its own", content(GRAPH, model_of() + proto(25, b"")), "functions"),
    row("training information", content(GRAPH, model_of() + proto(20, b"")), "training"),
    row("sparse tensors", content(GRAPH, model_of(proto(15, b""))), "sparse"),
    row(
        "half of the graph",
        lambda d: (d / GRAPH).write_bytes((d / GRAPH).read_bytes()[:9000]),
        GRAPH,
    ),
    graph("operators that feed one another", cycle, "front of a product"),
    graph("two thousand operators in a row", chain, "front of a product"),
    graph("a product without inputs", without_inputs, "parts"),
    graph("a product of codes alone", one_input, "parts"),
    graph("a constant without a value", constant_without_value, "stored tensor"),
    graph("a number that is a text", text_attribute, "block_size"),
    graph("a number that is a tensor", tensor_attribute, "bits"),
    graph("blocks of nothing", set_attribute("block_size", 0), "blocks of 0"),
    graph("blocks below zero", set_attribute("block_size", -32), "blocks of -32"),
    graph("blocks of 2^40", set_attribute("block_size", 1 << 40), "blocks of"),
    graph("3 bits", set_attribute("bits", 3), "3 bits"),
    graph("a product of no rows", set_attribute("N", 0), "not covered"),
    graph("a product of 2^60 rows", set_attribute("N", 1 << 60), "elements"),
    graph("columns below zero", set_attribute("K", -128), "not covered"),
    graph("gains of texts", retyped(TensorProto.STRING), "STRING"),
    graph("gains of no type", retyped(TensorProto.UNDEFINED), "norm.weight"),
    graph("gains of complex numbers", retyped(TensorProto.COMPLEX128), "COMPLEX128"),
    graph("gains of an unknown type", retyped(77), GRAPH),
    graph("gains of whole numbers", retyped(TensorProto.INT64), "INT64"),
    graph("a shape of 0", shape_of("norm.weight", 0), "[0]"),
    graph("a shape below zero", shape_of("norm.weight", -128), "norm.weight"),
    graph("a shape that overflows", shape_of("norm.weight", 1 << 32, 1 << 32), "norm.weight"),
    graph("a shape of nothing", shape_of("norm.weight"), "norm.weight"),
    graph("gains of too few bytes", inline("cos_cache.weight", b"\0\0"), "cos_cache"),
    graph("data elsewhere", lambda g: external(g, "location", "../secret"), "outside"),
    graph("data below zero", lambda g: external(g, "offset", "-4096"), GRAPH),
    graph("caches of one row", shape_of("cos_cache.weight", 1, 16), "rotary caches"),
    graph("caches of no columns", shape_of("cos_cache.weight", 256, 0), "rotary caches"),
    graph("caches of other columns", shape_of("cos_cache.weight", 128, 8), "rotary caches"),
    graph("no caches", lambda g: g.initializer.remove(tensor(g, "cos_cache.weight")), "cos_cache"),
    row("metadata that are no JSON", metadata("{"), "phiquant.architecture"),
    row("metadata that are a list", metadata("[]"), "phiquant.architecture"),
    row("metadata of brackets", metadata("[" * 100_000), "phiquant.architecture"),
    row("a rope of a number", stated(lambda d: d.update(rope=7)), "phiquant.architecture"),
    row(
        "a theta of a text", stated(lambda d: d["rope"].update(theta="x")), "phiquant.architecture"
    ),
    row("a theta below zero", stated(lambda d: d["rope"].update(theta=-1)), "theta"),
    row(
        "rotary dimensions without end",
        stated(lambda d: d["rope"].update(dimensions=1 << 40)),
        "rotary caches",
    ),
    row(
        "a window of a text",
        stated(lambda d: d.update(sliding_window="wide")),
        "'wide'",
    ),
]
