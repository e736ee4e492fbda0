"""Which stored matrix is which weight of the network, from the graph.

Layers are told by node names (`/model/layers.0/attn/o_proj/...`), which this writer and
onnxruntime-genai's builder share; what a node computes with is read from its inputs. Separate
q, k, v and gate, up projections are stacked, as the checkpoint has them.
"""

from collections.abc import Mapping
from math import prod

import onnx_ir as ir

from phiquant.errors import ArtifactError
from phiquant.targets.onnx.model_file import ModelFile, extents
from phiquant.targets.onnx.stored import (
    BlockMatrix,
    FloatMatrix,
    Matrix,
    NbitsMatrix,
    Stacked,
)

PRODUCTS = ("MatMulNBits", "MatMul")
PROJECTIONS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "self_attn.qkv_proj": (("attn/qkv_proj",), ("attn/q_proj", "attn/k_proj", "attn/v_proj")),
    "self_attn.o_proj": (("attn/o_proj",),),
    "mlp.gate_up_proj": (("mlp/gate_up_proj",), ("mlp/gate_proj", "mlp/up_proj")),
    "mlp.down_proj": (("mlp/down_proj",),),
}


def read_matrices(file: ModelFile, layers: int) -> dict[str, Matrix]:
    """Every weight by its checkpoint name; "lm_head.weight" too, even where it is tied.

    Raises ArtifactError for a graph whose weights are not where they are looked for.
    """
    try:
        return _read_matrices(file, layers)
    except IndexError as error:  # a node has fewer inputs than its operator needs
        raise ArtifactError("an operator of the graph lacks an input that it needs") from error


def _read_matrices(file: ModelFile, layers: int) -> dict[str, Matrix]:
    found: dict[str, Matrix] = {"model.embed_tokens.weight": _embedding(file)}
    for layer in range(layers):
        at = f"model.layers.{layer}"
        found[f"{at}.input_layernorm.weight"] = _gains(file, f"{at}.input_layernorm.weight")
        for name, choices in PROJECTIONS.items():
            if name == "mlp.gate_up_proj":
                gains = f"{at}.post_attention_layernorm.weight"
                found[gains] = _gains(file, gains)
            found[f"{at}.{name}.weight"] = _projection(file, layer, choices)
    final = f"model.layers.{layers}.final_norm_layernorm.weight"
    found["model.norm.weight"] = _gains(file, "model.norm.weight", final)
    found["lm_head.weight"] = _product(file, "/lm_head/")
    return found


def is_tied(matrices: Mapping[str, Matrix]) -> bool:
    """Whether head and embedding read the same bytes."""
    head = matrices["lm_head.weight"].tensors[0]
    embedding = matrices["model.embed_tokens.weight"].tensors[0]
    return head is embedding or (_place(head) is not None and _place(head) == _place(embedding))


def _place(tensor: ir.TensorProtocol) -> tuple[str, int | None] | None:
    if isinstance(tensor, ir.ExternalTensor):
        return str(tensor.location), tensor.offset
    return None


def _projection(file: ModelFile, layer: int, choices: tuple[tuple[str, ...], ...]) -> Matrix:
    prefix = f"/model/layers.{layer}/"
    for names in choices:
        if any(any(file.named(f"{prefix}{name}/", *PRODUCTS)) for name in names):
            matrices = [_product(file, f"{prefix}{name}/") for name in names]
            return matrices[0] if len(matrices) == 1 else Stacked(matrices)
    raise ArtifactError(f"the graph has no product named {prefix}{choices[0][0]}")


def _product(file: ModelFile, prefix: str) -> Matrix:
    nodes = list(file.named(prefix, *PRODUCTS))
    if len(nodes) != 1:
        raise ArtifactError(f"expected one product named {prefix}*, found {len(nodes)}")
    (node,) = nodes
    if node.op_type == "MatMulNBits":
        size = (_integer(node, "N"), _integer(node, "K"))
        return _nbits(file, node, [node.inputs[0], *node.inputs[1:4]], size)
    return _factor(file, node.inputs[1], transposed=True)


def _factor(file: ModelFile, value: ir.Value | None, transposed: bool) -> Matrix:
    """The matrix behind an operand, through what is done to it on the way."""
    producer = value.producer() if value is not None else None
    if producer is None or producer.op_type == "Constant":
        return FloatMatrix(file, file.tensor(value), transposed)
    if producer.op_type == "Cast":
        return _factor(file, producer.inputs[0], transposed)
    if producer.op_type == "Transpose":
        return _factor(file, producer.inputs[0], not transposed)
    if producer.op_type == "DequantizeLinear":
        return _dequantized(file, producer, transposed)
    raise ArtifactError(f"{producer.name} ({producer.op_type}) in front of a product is not known")


def _dequantized(file: ModelFile, node: ir.Node, transposed: bool) -> Matrix:
    parts = [file.tensor(_gathered(value)) for value in node.inputs if value is not None]
    if any(len(part.shape) != 2 for part in parts):
        raise ArtifactError(f"{node.name} should have matrices as inputs")
    return BlockMatrix(file, tuple(parts), transposed)


def _gathered(value: ir.Value) -> ir.Value | None:
    producer = value.producer()
    return producer.inputs[0] if producer is not None and producer.op_type == "Gather" else value


def _embedding(file: ModelFile) -> Matrix:
    prefix = "/model/embed_tokens/"
    for node in file.named(prefix, "DequantizeLinear"):
        gather = node.inputs[0].producer() if node.inputs[0] is not None else None
        across = gather is not None and _integer(gather, "axis", 0) == 1
        return _dequantized(file, node, transposed=across)
    for node in file.named(prefix, "GatherBlockQuantized"):
        # The builder reshapes the head's matrix in front of it.
        codes = node.inputs[0]
        producer = codes.producer() if codes is not None else None
        if producer is not None and producer.op_type == "Reshape":
            codes = producer.inputs[0]
        scales = file.tensor(node.inputs[2])
        rows, blocks = extents(scales)
        size = (rows, blocks * _integer(node, "block_size"))
        return _nbits(file, node, [None, codes, *node.inputs[2:4]], size)
    for node in file.named(prefix, "Gather"):
        return _factor(file, node.inputs[0], transposed=_integer(node, "axis", 0) == 1)
    raise ArtifactError(f"the graph has no embedding named {prefix}*")


def _nbits(
    file: ModelFile,
    node: ir.Node,
    inputs: list[ir.Value | None],
    size: tuple[int, int],
) -> NbitsMatrix:
    parts = tuple(file.tensor(value) for value in inputs[1:] if value is not None)
    bits, block = _integer(node, "bits", 4), _integer(node, "block_size")
    if bits not in (4, 8) or block < 1:
        raise ArtifactError(f"{node.name} has {bits} bits in blocks of {block}; not covered")
    rows, columns = size
    blocks = -(-columns // block)
    expected = [rows * blocks * block * bits // 8, rows * blocks]
    for part, elements in zip(parts, expected, strict=False):
        found = prod(extents(part))
        if found != elements:
            raise ArtifactError(f"{part.name} should have {elements} elements, found {found}")
    return NbitsMatrix(file, parts, size, bits, block)


def _gains(file: ModelFile, *names: str) -> Matrix:
    for name in names:
        value = file.model.graph.initializers.get(name)
        if value is not None:
            return FloatMatrix(file, file.tensor(value), transposed=False)
    raise ArtifactError(f"the graph has no tensor {names[0]}")


def _integer(node: ir.Node, name: str, default: int | None = None) -> int:
    attribute = node.attributes.get(name)
    if attribute is None:
        if default is None:
            raise ArtifactError(f"{node.name} has no attribute {name}")
        return default
    return int(attribute.value)
