"""What an OpenVINO artifact may ask of OpenVINO and openvino_genai.

A graph's text (IR) can name operators of extensions, graphs within graphs, constants outside of
its file of weights or, as plugins write them to themselves, at an address in memory; its `rt_info`
can name files (`__weights_path`). A directory can hold further graphs, for which openvino_genai
looks by name. What is listed here is what optimum-cli, openvino_tokenizers and phiquant write for
decoders.

The text is read by expat, as UTF-8 whatever it says of itself, and so that a reader that knows less
of XML (OpenVINO's) cannot see anything else in it: without a document type, so without entities.
Source: src/frontends/ir and src/core/xml_util of openvino (2026.4), src/cpp/src/utils.cpp and
tokenizer_impl.cpp of openvino.genai, src/ov_extension.cpp of openvino_tokenizers.
"""

from collections.abc import Mapping
from pathlib import Path
from xml.parsers import expat

from phiquant.errors import ArtifactError
from phiquant.host import foreign
from phiquant.targets.openvino.xml_reader import DEEPEST, MODEL

TOKENIZERS = ("openvino_tokenizer.xml", "openvino_detokenizer.xml")

OPSETS = frozenset(f"opset{number}" for number in range(1, 17))
OPERATORS = frozenset(
    (
        "Abs", "Add", "Assign", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor", "Broadcast",
        "Ceiling", "Clamp", "Concat", "Const", "Convert", "ConvertLike", "Cos", "CumSum", "Divide",
        "Einsum", "Equal", "Erf", "Exp", "Eye", "FakeConvert", "FakeQuantize", "Floor", "FloorMod",
        "Gather", "GatherElements", "GatherND", "Gelu", "Greater", "GreaterEqual", "HSwish",
        "HSigmoid", "IsFinite", "IsInf", "IsNaN", "Less", "LessEqual", "Log", "LogSoftmax",
        "LogicalAnd", "LogicalNot", "LogicalOr", "LogicalXor", "MatMul", "Maximum", "Minimum",
        "Mod", "Multiply", "MVN", "Negative", "NonZero", "NormalizeL2", "NotEqual", "OneHot", "Pad",
        "Parameter", "Power", "Range", "ReLU", "ReadValue", "ReduceL2", "ReduceLogicalAnd",
        "ReduceLogicalOr", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum",
        "Reshape", "Result", "Roll", "Round", "ScaledDotProductAttention",
        "ScatterElementsUpdate", "ScatterNDUpdate", "ScatterUpdate", "Select", "ShapeOf", "Sigmoid",
        "Sign", "Sin", "Slice", "SliceScatter", "SoftMax", "SoftPlus", "Softmax", "Split", "Sqrt",
        "SquaredDifference", "Squeeze", "StridedSlice", "StringTensorPack", "StringTensorUnpack",
        "Subtract", "Swish", "Tanh", "Tile", "TopK", "Transpose", "Unique", "Unsqueeze",
        "VariadicSplit",
    )
)  # fmt: skip
"""OpenVINO's own that compute from their inputs, and nothing else; without loops and branches,
which hold graphs of their own."""

EXTENSION = "extension"
TEXT_OPERATORS = frozenset(
    (
        "BPETokenizer", "ByteFallback", "BytesToChars", "CaseFold", "CharsMapNormalization",
        "CharsToBytes", "CombineSegments", "EqualStr", "FuzeRagged", "NormalizeUnicode",
        "RaggedTensorPack", "RaggedToDense", "RaggedToRagged", "RaggedToSparse",
        "RegexNormalization", "RegexSplit", "SentencepieceDetokenizer",
        "SentencepieceStreamDetokenizer", "SentencepieceTokenizer", "SpecialTokensSplit",
        "StringTensorPack", "StringTensorUnpack", "StringToHashBucket", "TrieTokenizer",
        "Truncate", "UTF8Validate", "UnigramTokenizer", "VocabDecoder", "VocabEncoder",
        "WordpieceTokenizer",
    )
)  # fmt: skip
"""Those of openvino_tokenizers, which its package brings."""

ELEMENTS: Mapping[str, frozenset[str]] = {
    "": frozenset(("net",)),
    "net": frozenset(("layers", "edges", "rt_info")),
    "layers": frozenset(("layer",)),
    "layer": frozenset(("data", "input", "output", "rt_info")),
    "input": frozenset(("port", "rt_info")),
    "output": frozenset(("port", "rt_info")),
    "port": frozenset(("dim", "rt_info")),
    "edges": frozenset(("edge",)),
    "rt_info": frozenset(("attribute",)),
}
"""Which elements stand in which; `rt_info` of the whole graph is told apart by where it stands."""

CONSTANT = frozenset(("element_type", "shape", "offset", "size"))
"""What a constant says of itself. Some versions of OpenVINO take an address too (`ptr`)."""

RUNTIME = frozenset(
    (
        "ACTIVATIONS_SCALE_FACTOR", "DYNAMIC_QUANTIZATION_GROUP_SIZE", "KV_CACHE_PRECISION",
        "KEY_CACHE_PRECISION", "VALUE_CACHE_PRECISION", "KEY_CACHE_GROUP_SIZE",
        "VALUE_CACHE_GROUP_SIZE",
    )
)  # fmt: skip
"""Properties that `rt_info`'s section `runtime_options` may set; it could hold any."""
SECTIONS = frozenset(
    (
        "OpenVINO Runtime", "Runtime_version", "conversion_parameters", "framework",
        "legacy_frontend", "model_info", "nncf", "optimum", "phiquant", "runtime_options",
        "is_python_object", "openvino_version", "openvino_tokenizers_version",
        "openvino_genai_version", "tokenizers_version", "transformers_version",
        "sentencepiece_version", "tiktoken_version", "simplified_chat_template", "chat_template",
        "bos_token_id", "eos_token_id", "pad_token_id", "add_attention_mask", "add_prefix_space",
        "add_special_tokens", "clean_up_tokenization_spaces", "detokenizer_input_type",
        "handle_special_tokens_with_re", "max_length", "max_padding", "number_of_inputs",
        "original_post_processor_template", "original_tokenizer_class",
        "processed_post_processor_template", "skip_special_tokens", "streaming_detokenizer",
        "tokenizer_output_type", "truncation", "use_max_padding", "use_sentencepiece_backend",
        "utf8_replace_mode", "with_detokenizer",
    )
)  # fmt: skip
"""Sections and values of the whole graph's `rt_info` that say how it was made, or are tokens."""
PIECE = 1 << 20


def check_artifact(directory: Path) -> None:
    """Raise ArtifactError for anything that the runtimes must not be given."""
    for path in sorted(directory.iterdir()):
        if path.suffix.lower() != ".xml":  # some systems take both spellings for one
            continue
        if path.name not in (MODEL, *TOKENIZERS):
            raise ArtifactError(
                f"{path.name} is a graph that no decoder needs, and openvino_genai might load it; "
                "the runtime is not given the artifact"
            )
        check_graph(path, extensions=path.name in TOKENIZERS)


def check_graph(path: Path, extensions: bool = False) -> None:
    """Raise ArtifactError for an IR with anything that is not listed.

    `extensions` lets operators of openvino_tokenizers through.
    """
    binary, size = path.with_suffix(".bin"), 0
    if foreign.present(binary):
        size = foreign.check_file(binary, foreign.STORED, path.parent)
    reader = _Reader(path.name, size, extensions)
    try:
        with foreign.opened(path, foreign.OPENVINO_GRAPH, path.parent) as file:
            while piece := file.read(PIECE):
                reader.parser.Parse(piece, False)
        reader.parser.Parse(b"", True)
    except (ValueError, expat.ExpatError) as error:
        raise ArtifactError(f"{path.name} is no OpenVINO model ({error})") from error


class _Reader:
    """Checks one graph while expat reads it."""

    def __init__(self, file: str, size: int, extensions: bool) -> None:
        self._file, self._size, self._extensions = file, size, extensions
        self._open: list[str] = []
        self._layer = ""
        self.parser = expat.ParserCreate("utf-8")
        self.parser.StartElementHandler = self._begin
        self.parser.EndElementHandler = self._end
        self.parser.StartDoctypeDeclHandler = self._document_type

    def _document_type(self, *_: object) -> None:
        raise self._refused("a document type")

    def _begin(self, name: str, attributes: dict[str, str]) -> None:
        within = self._open[-1] if self._open else ""
        if len(self._open) >= DEEPEST:
            raise self._refused(f"elements more than {DEEPEST} within one another")
        if self._open[:2] == ["net", "rt_info"]:
            self._note(name, attributes)
        elif name not in ELEMENTS.get(within, ()):
            raise self._refused(f"the element {name!r:.60} in {within or 'the document'!r}")
        elif name == "layer":
            self._operator(attributes)
        elif name == "data" and self._layer == "Const":
            self._constant(attributes)
        self._open.append(name)

    def _end(self, name: str) -> None:
        self._open.pop()

    def _operator(self, attributes: Mapping[str, str]) -> None:
        kind, version = attributes.get("type", ""), attributes.get("version", "")
        own = version in OPSETS and kind in OPERATORS
        text = self._extensions and version == EXTENSION and kind in TEXT_OPERATORS
        if not own and not text:
            raise self._refused(f"the operator {version}:{kind}")
        self._layer = kind

    def _constant(self, attributes: Mapping[str, str]) -> None:
        if set(attributes) != CONSTANT:
            raise self._refused(f"a constant with {', '.join(sorted(attributes)):.80}")
        offset, size = (int(attributes[name]) for name in ("offset", "size"))
        if offset < 0 or size < 0 or offset + size > self._size:
            raise ArtifactError(
                f"{self._file} has a constant of {size} bytes at {offset}, beyond the end of its "
                f"weights, which are {self._size} bytes"
            )

    def _note(self, tag: str, attributes: Mapping[str, str]) -> None:
        """A value in `rt_info`, or a section; OpenVINO takes the attribute `name` for its name."""
        depth = len(self._open) - 2
        name = attributes.get("name", tag)
        if depth == 0 and (name not in SECTIONS or tag == "__weights_path"):
            raise self._refused(f"{name!r:.60} in rt_info")
        if depth == 0:
            self._section = name
        elif self._section == "runtime_options" and name not in RUNTIME:
            raise self._refused(f"the runtime option {name!r:.60}")

    def _refused(self, what: str) -> ArtifactError:
        return ArtifactError(
            f"{self._file} has {what}, which is none of those that are known to be safe; the "
            "runtime is not given the artifact"
        )
