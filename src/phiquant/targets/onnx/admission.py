"""What an ONNX artifact may ask of ONNX Runtime and onnxruntime-genai.

`genai_config.json` can name libraries to load (`custom_ops_library`, providers), files to write
(`enable_profiling`, `session.optimized_model_filepath`), other models and directories. The graph
can name files for its tensors, and operators that are not ONNX Runtime's own. What is listed here
is what onnxruntime-genai's builder and phiquant write for Phi-3's kind, and what tunes a session.
Source: src/config.cpp and src/models/model.cpp of onnxruntime-genai (0.18),
onnxruntime_session_options_config_keys.h of onnxruntime (1.31).
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from phiquant.errors import ArtifactError
from phiquant.host import foreign
from phiquant.targets.admission import (
    Schema,
    admit,
    among,
    flag,
    matching,
    number,
    numbers,
    read_settings,
    text,
    texts,
)
from phiquant.targets.onnx.message import read_message
from phiquant.targets.tokenizer_settings import check_tokenizer_settings

CONFIG, MODULE = "genai_config.json", "tokenizer_module.json"

SWITCH = among("0", "1")
GRAPH = matching(r"[\w-][\w.-]*\.onnx")
"""A file of the artifact's directory; ONNX Runtime reads other formats by other endings."""

PROVIDERS: Mapping[str, Schema] = {
    "cpu": {},
    "cuda": {"enable_cuda_graph": SWITCH, "enable_skip_layer_norm_strict_mode": SWITCH},
    "dml": {"enable_graph_capture": SWITCH},
    "webgpu": {
        "enableGraphCapture": SWITCH,
        "validationMode": among("disabled", "wgpuOnly", "basic", "full"),
        "multiRotaryCacheConcatOffset": matching(r"\d+"),
    },
    "nvtensorrtrtx": {
        "enable_cuda_graph": SWITCH,
        "multi_rotary_cache_concat_offset": matching(r"\d+"),
        "nv_multi_profile_enable": SWITCH,
    },
}
"""Providers whose options name no library and no file. Whatever they are, the artifact is run on
the CPU here."""


def _providers(value: object) -> bool:
    """A list of objects, each from a provider's name to its options."""
    return isinstance(value, list) and all(map(_provider, value))


def _provider(value: object) -> bool:
    if not isinstance(value, dict):
        return False
    for name, options in value.items():
        allowed = PROVIDERS.get(name.lower().removesuffix("executionprovider"))
        if allowed is None or not isinstance(options, dict):
            return False
        if not all(key in allowed and allowed[key](option) for key, option in options.items()):  # type: ignore[operator]
            return False
    return True


SESSION: Schema = {
    "log_id": text,
    "log_severity_level": number,
    "log_verbosity_level": number,
    "intra_op_num_threads": number,
    "inter_op_num_threads": number,
    "enable_cpu_mem_arena": flag,
    "enable_mem_pattern": flag,
    "graph_optimization_level": among(
        "ORT_DISABLE_ALL", "ORT_ENABLE_BASIC", "ORT_ENABLE_EXTENDED", "ORT_ENABLE_ALL"
    ),
    "provider_options": _providers,
    "session.disable_prepacking": SWITCH,
    "session.disable_quant_qdq": SWITCH,
    "session.enable_quant_qdq_cleanup": SWITCH,
    "session.set_denormal_as_zero": SWITCH,
    "session.use_env_allocators": SWITCH,
    "session.use_device_allocator_for_initializers": SWITCH,
    "session.intra_op.allow_spinning": SWITCH,
    "session.inter_op.allow_spinning": SWITCH,
    "session.force_spinning_stop": SWITCH,
    "session.dynamic_block_base": matching(r"\d{1,3}"),
    "session.qdq_matmulnbits_accuracy_level": matching(r"\d"),
    "mlas.enable_gemm_fastmath_arm64_bfloat16": SWITCH,
}

DECODER: Schema = {
    "filename": GRAPH,
    "session_options": SESSION,
    "hidden_size": number,
    "num_attention_heads": number,
    "num_hidden_layers": number,
    "num_key_value_heads": number,
    "head_size": number,
    "inputs": dict.fromkeys(
        ("input_ids", "attention_mask", "position_ids", "past_key_names", "past_value_names"), text
    ),
    "outputs": dict.fromkeys(("logits", "present_key_names", "present_value_names"), text),
    "layer_types": texts,
    "sliding_window": {
        "window_size": number,
        "pad_value": number,
        "alignment": text,
        "slide_key_value_cache": flag,
        "slide_inputs": flag,
        "layers": numbers,
        "cache_slack": number,
    },
}

SETTINGS: Schema = {
    "model": {
        "type": among("phi3"),
        "context_length": number,
        "vocab_size": number,
        "bos_token_id": number,
        "eos_token_id": numbers,
        "pad_token_id": number,
        "sep_token_id": number,
        "decoder": DECODER,
    },
    "search": {
        **dict.fromkeys(("do_sample", "early_stopping", "past_present_share_buffer"), flag),
        **dict.fromkeys(
            (
                "batch_size", "chunk_size", "diversity_penalty", "length_penalty", "max_length",
                "min_length", "no_repeat_ngram_size", "num_beams", "num_return_sequences",
                "random_seed", "repetition_penalty", "temperature", "top_k", "top_p",
            ),
            number,
        ),
    },
}  # fmt: skip

OPERATORS: Mapping[str, frozenset[str]] = {
    "": frozenset(
        (
            "Abs", "Add", "And", "ArgMax", "ArgMin", "Attention", "BitShift", "BitwiseAnd",
            "BitwiseNot", "BitwiseOr", "BitwiseXor", "Cast", "CastLike", "Ceil", "Clip",
            "Concat", "Constant", "ConstantOfShape", "Cos", "CumSum", "DequantizeLinear", "Div",
            "DynamicQuantizeLinear", "Einsum", "Equal", "Erf", "Exp", "Expand", "Flatten",
            "Floor", "Gather", "GatherElements", "GatherND", "Gelu", "Gemm", "Greater",
            "GreaterOrEqual", "HardSigmoid", "HardSwish", "Identity", "If", "IsInf", "IsNaN",
            "LayerNormalization", "Less", "LessOrEqual", "Log", "LogSoftmax", "MatMul",
            "MatMulInteger", "Max", "Mean", "Min", "Mod", "Mul", "Neg", "NonZero", "Not", "Or",
            "Pad", "Pow", "QLinearMatMul", "QuantizeLinear", "RMSNormalization", "Range",
            "Reciprocal", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd",
            "ReduceSum", "ReduceSumSquare", "Relu", "Reshape", "RotaryEmbedding", "Round",
            "ScatterElements", "ScatterND", "Shape", "Sigmoid", "Sign",
            "SimplifiedLayerNormalization", "Sin", "Size", "Slice", "Softmax", "Softplus",
            "Split", "Sqrt", "Squeeze", "Sub", "Sum", "Swish", "Tanh", "TensorScatter", "Tile",
            "TopK", "Transpose", "Trilu", "Unsqueeze", "Where", "Xor",
        )
    ),
    "com.microsoft": frozenset(
        (
            "BiasGelu", "DequantizeLinear", "DynamicQuantizeMatMul", "FastGelu", "FusedMatMul",
            "GatherBlockQuantized", "Gelu", "GroupQueryAttention", "MatMulIntegerToFloat",
            "MatMulNBits", "MultiHeadAttention", "QuantizeLinear", "QuickGelu", "RotaryEmbedding",
            "SimplifiedLayerNormalization", "SkipLayerNormalization",
            "SkipSimplifiedLayerNormalization",
        )
    ),
}  # fmt: skip
"""By domain: operators that compute from their inputs, and nothing else. Loops are not among them:
no decoder needs one, and they need not end."""


def check_artifact(directory: Path) -> Path:
    """Raise ArtifactError for anything that the runtimes must not be given; returns the graph."""
    settings = read_settings(directory / CONFIG)
    admit(settings, SETTINGS, CONFIG)
    graph = directory / str(settings.get("model", {}).get("decoder", {}).get("filename", ""))
    if foreign.present(directory / MODULE):
        raise ArtifactError(
            f"{MODULE} would add to the settings of the tokenizer; the runtime is not given the "
            "artifact"
        )
    check_tokenizer_settings(directory)
    check_graph(graph)
    return graph


def check_graph(path: Path) -> None:
    """Raise ArtifactError for a graph with operators or files that are not listed or its own."""
    model = read_message(path)
    for node in _nodes([model.graph]):
        domain = "" if node.domain == "ai.onnx" else node.domain
        if node.op_type not in OPERATORS.get(domain, ()):
            raise ArtifactError(
                f"{path.name} has the operator {node.domain or 'ai.onnx'}:{node.op_type}, which is "
                "none of those that are known to be safe; the runtime is not given the artifact"
            )
    for tensor in _tensors(model.graph):
        for entry in tensor.external_data:
            if entry.key == "location":
                _check_location(path, tensor.name, entry.value)


def _graphs(graph: Any) -> Iterator[Any]:  # noqa: ANN401 (protobuf is untyped)
    """The graph and those in its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in ((attribute.g,) if attribute.HasField("g") else (), attribute.graphs):
                for graph_within in inner:
                    yield from _graphs(graph_within)


def _nodes(graphs: Iterable[Any]) -> Iterator[Any]:
    for graph in graphs:
        for inner in _graphs(graph):
            yield from inner.node


def _tensors(graph: Any) -> Iterator[Any]:  # noqa: ANN401
    """Every stored tensor, wherever it stands."""
    for inner in _graphs(graph):
        yield from inner.initializer
        for sparse in inner.sparse_initializer:
            yield from (sparse.values, sparse.indices)
        for node in inner.node:
            for attribute in node.attribute:
                yield from (attribute.t, *attribute.tensors)
                for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                    yield from (sparse.values, sparse.indices)


def _check_location(path: Path, tensor: str, location: str) -> None:
    if not foreign.is_plain_name(location) or "\\" in location:
        raise ArtifactError(
            f"{tensor} refers to {location!r}, outside the artifact's directory, so the runtime is "
            "not given the artifact"
        )
