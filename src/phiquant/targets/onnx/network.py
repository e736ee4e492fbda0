"""Which stored matrix is which weight of the network, from the graph.

Layers are told by node names (`/model/layers.0/attn/o_proj/...`), which this writer and
onnxruntime-genai's builder share; what a node computes with is read from its inputs. Separate
q, k, v and gate, up projections are stacked, as the checkpoint has them.
"""

from collections.abc import Mapping
from math import prod

import onnx_ir as ir

from phiquant.errors import ArtifactError
from phiquant.targets.onnx.model_file import ModelFile, extents, integer
from phiquant.targets.onnx.stored import (
    FLOAT_NAMES,
    BlockMatrix,
    FloatMatrix,
    Matrix,
    NbitsMatrix,
    Stacked,
)

PRODUCTS = ("MatMulNBits", "MatMul")
MOST_STEPS = 4
"""Operators between a stored matrix and the product that it is for."""
LARGEST_BLOCK = 1 << 16
BYTES = (ir.DataType.UINT8,)
CODES = (ir.DataType.INT4, ir.DataType.UINT4, ir.DataType.INT8, ir.DataType.UINT8)
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
    matrices: dict[str, Matrix] = {"model.embed_tokens.weight": _embedding(file)}
    for layer in range(layers):
        at = f"model.layers.{layer}"
        matrices[f"{at}.input_layernorm.weight"] = _gains(file, f"{at}.input_layernorm.weight")
        for name, choices in PROJECTIONS.items():
            if name == "mlp.gate_up_proj":
                gains = f"{at}.post_attention_layernorm.weight"
                matrices[gains] = _gains(file, gains)
            matrices[f"{at}.{name}.weight"] = _projection(file, layer, choices)
    final = f"model.layers.{layers}.final_norm_layernorm.weight"
    matrices["model.norm.weight"] = _gains(file, "model.norm.weight", final)
    matrices["lm_head.weight"] = _product(file, "/lm_head/")
    return matrices


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
            return matrices[0] if len(matrices) == 1 else _stacked(prefix, matrices)
    raise ArtifactError(f"the graph has no product named {prefix}{choices[0][0]}")


def _stacked(prefix: str, matrices: list[Matrix]) -> Matrix:
    shapes = [matrix.shape for matrix in matrices]
    if any(len(shape) != 2 or shape[1] != shapes[0][1] for shape in shapes):
        raise ArtifactError(f"the products named {prefix}* should have inputs of one size")
    return Stacked(matrices)


def _product(file: ModelFile, prefix: str) -> Matrix:
    nodes = list(file.named(prefix, *PRODUCTS))
    if len(nodes) != 1:
        raise ArtifactError(f"expected one product named {prefix}*, found {len(nodes)}")
    (node,) = nodes
    if node.op_type == "MatMulNBits":
        size = (integer(node, "N"), integer(node, "K"))
        return _nbits(file, node, [node.inputs[0], *node.inputs[1:4]], size)
    return _factor(file, node.inputs[1], transposed=True)


def _factor(file: ModelFile, value: ir.Value | None, transposed: bool) -> Matrix:
    """The matrix behind an operand, through what is done to it on the way."""
    for _ in range(MOST_STEPS):
        producer = value.producer() if value is not None else None
        if producer is None or producer.op_type == "Constant":
            return FloatMatrix(file, file.tensor(value), transposed)
        if producer.op_type == "DequantizeLinear":
            return _dequantized(file, producer, transposed)
        if producer.op_type not in ("Cast", "Transpose"):
            raise ArtifactError(
                f"{producer.name} ({producer.op_type}) in front of a product is not known"
            )
        transposed ^= producer.op_type == "Transpose"
        value = producer.inputs[0]
    raise ArtifactError(f"more than {MOST_STEPS} operators stand in front of a product")


def _dequantized(file: ModelFile, node: ir.Node, transposed: bool) -> Matrix:
    parts = [file.tensor(_gathered(value)) for value in node.inputs if value is not None]
    if len(parts) not in (2, 3) or any(len(part.shape) != 2 for part in parts):
        raise ArtifactError(f"{node.name} should have two or three matrices as inputs")
    codes, scales, *zeros = map(extents, parts)
    across = 0 if transposed else 1
    if (
        parts[0].dtype not in CODES
        or parts[1].dtype not in FLOAT_NAMES
        or any(zero != scales for zero in zeros)
        or any(part.dtype is not parts[0].dtype for part in parts[2:])
        or scales[1 - across] != codes[1 - across]
        or min(scales) < 1
        or codes[across] % scales[across]
    ):
        raise ArtifactError(f"{node.name} has codes, scales and zero points that do not fit")
    return BlockMatrix(file, tuple(parts), transposed)


def _gathered(value: ir.Value) -> ir.Value | None:
    producer = value.producer()
    return producer.inputs[0] if producer is not None and producer.op_type == "Gather" else value


def _embedding(file: ModelFile) -> Matrix:
    prefix = "/model/embed_tokens/"
    for node in file.named(prefix, "DequantizeLinear"):
        gather = node.inputs[0].producer() if node.inputs[0] is not None else None
        across = gather is not None and integer(gather, "axis", 0) == 1
        return _dequantized(file, node, transposed=across)
    for node in file.named(prefix, "GatherBlockQuantized"):
        # The builder reshapes the head's matrix in front of it.
        codes = node.inputs[0]
        producer = codes.producer() if codes is not None else None
        if producer is not None and producer.op_type == "Reshape":
            codes = producer.inputs[0]
        shape = extents(file.tensor(node.inputs[2]))
        if len(shape) != 2:
            raise ArtifactError(f"{node.name} should have a matrix of scales")
        size = (shape[0], shape[1] * integer(node, "block_size"))
        return _nbits(file, node, [None, codes, *node.inputs[2:4]], size)
    for node in file.named(prefix, "Gather"):
        return _factor(file, node.inputs[0], transposed=integer(node, "axis", 0) == 1)
    raise ArtifactError(f"the graph has no embedding named {prefix}*")


def _nbits(
    file: ModelFile,
    node: ir.Node,
    inputs: list[ir.Value | None],
    size: tuple[int, int],
) -> NbitsMatrix:
    parts = tuple(file.tensor(value) for value in inputs[1:] if value is not None)
    bits, block = integer(node, "bits", 4), integer(node, "block_size")
    if bits not in (4, 8) or not 1 <= block <= LARGEST_BLOCK or block * bits % 8:
        raise ArtifactError(f"{node.name} has {bits} bits in blocks of {block}; not covered")
    if min(size) < 1 or len(parts) not in (2, 3):
        raise ArtifactError(f"{node.name} has {len(parts)} parts of {list(size)}; not covered")
    rows, columns = size
    blocks = -(-columns // block)
    packed = parts[2:] and parts[2].dtype in BYTES
    zeros = rows * ((blocks * bits + 7) // 8) if packed else rows * blocks
    expected = [
        (rows * blocks * block * bits // 8, BYTES),
        (rows * blocks, tuple(FLOAT_NAMES)),
        (zeros, BYTES + tuple(FLOAT_NAMES)),
    ]
    for part, (elements, types) in zip(parts, expected, strict=False):
        stored = prod(extents(part))
        if stored != elements or part.dtype not in types:
            raise ArtifactError(
                f"{part.name} should have {elements} elements of {types[0].name}, found {stored} "
                f"of {part.dtype.name}"
            )
    return NbitsMatrix(file, parts, size, bits, block)


def _gains(file: ModelFile, *names: str) -> Matrix:
    for name in names:
        value = file.model.graph.initializers.get(name)
        if value is not None:
            return FloatMatrix(file, file.tensor(value), transposed=False)
    raise ArtifactError(f"the graph has no tensor {names[0]}")
