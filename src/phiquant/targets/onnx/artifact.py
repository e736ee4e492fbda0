"""`OnnxArtifact`: a directory for onnxruntime-genai opened without its runtime.

Ours or the builder's that ships with onnxruntime-genai: dimensions come from genai_config.json
and the graph, weights from the graph's tensors, the rotary embedding from its caches.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import islice
from math import prod
from pathlib import Path
from typing import Any

import onnx_ir as ir

from phiquant.errors import ArtifactError
from phiquant.host import foreign
from phiquant.host.shown import shown
from phiquant.host.strict_json import parse_json
from phiquant.phi.architecture import Architecture
from phiquant.phi.config import MOST_LAYERS
from phiquant.phi.network.parts import LongRope, Rope
from phiquant.phi.soundness import fault_of
from phiquant.quantization.grid import Floats
from phiquant.targets.onnx.model_file import ModelFile, integer, nbytes_of, real
from phiquant.targets.onnx.network import is_tied, read_matrices
from phiquant.targets.onnx.rope_reading import read_caches, read_rope
from phiquant.targets.onnx.stored import Matrix, Stacked
from phiquant.targets.target import StoredEntry

ARCHITECTURE_KEY = "phiquant.architecture"
CONFIG = "genai_config.json"
MODEL_TYPE = "phi3"


class OnnxArtifact:
    """An opened directory. The graph is read on opening, tensors when asked for.

    Raises ArtifactError for files that are unsound, or no decoder of Phi-3's kind.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        config = _read_config(path)
        decoder = _mapping(config, "decoder")
        name = decoder.get("filename")
        if not isinstance(name, str) or not foreign.is_plain_name(name):
            raise ArtifactError(f"{CONFIG} names the graph {shown(name)}, outside its directory")
        layers = _count(decoder, "num_hidden_layers")
        if layers > MOST_LAYERS:
            raise ArtifactError(
                f"expected at most {MOST_LAYERS} layers in {CONFIG}, found {layers}"
            )
        self._file = ModelFile(path / name)
        self._matrices = read_matrices(self._file, layers)
        tied = is_tied(self._matrices)
        if tied:
            del self._matrices["lm_head.weight"]
        self._architecture = self._read_architecture(config, decoder, tied)
        self._check_shapes()
        for matrix in self._matrices.values():
            for tensor in matrix.tensors:
                self._file.check_place(tensor)

    @property
    def type(self) -> str:
        """The type that most weights have ("int4-b32")."""
        sizes: Counter[str] = Counter()
        for _, matrix in self._stored():
            sizes[matrix.type] += prod(matrix.shape)
        common = sizes.most_common(1)[0][0]
        return {"F32": "fp32", "F16": "fp16"}.get(common, common.split()[0])

    def entries(self) -> tuple[StoredEntry, ...]:
        """Every weight of the network, or its parts, as it is stored, in network order."""
        return tuple(
            StoredEntry(
                name,
                matrix.shape,
                matrix.type,
                sum(nbytes_of(tensor) for tensor in matrix.tensors),
            )
            for name, matrix in self._stored()
        )

    def _stored(self) -> Iterator[tuple[str, Matrix]]:
        for weight in self._architecture.weights():
            matrix = self._matrices[weight.name]
            if isinstance(matrix, Stacked):
                parts = self._architecture.network.linear[weight.name].parts
                for part, tensor in zip(parts, matrix.matrices, strict=True):
                    yield part.name, tensor
            else:
                yield weight.name, matrix

    def weight(self, name: str, first: int = 0, last: int | None = None) -> Floats:
        """Rows `first` to `last` of the weight `name`, the floats that the runtime sees."""
        if name not in self._matrices:
            raise ArtifactError(f"{self.path} has no weight {name}")
        return self._matrices[name].rows(first, last)

    @property
    def architecture(self) -> Architecture:
        """The network that the graph computes."""
        return self._architecture

    def _read_architecture(
        self, config: Mapping[str, Any], decoder: Mapping[str, Any], tied: bool
    ) -> Architecture:
        stated = self._stated_rope()
        long = stated.long if stated is not None else None
        positions = _count(config, "context_length")
        split = long.original_positions if long and long.original_positions < positions else 0
        rope = read_rope(read_caches(self._file, split), stated)
        gate_up = self._matrices["model.layers.0.mlp.gate_up_proj.weight"]
        architecture = Architecture(
            hidden_size=_count(decoder, "hidden_size"),
            layers=_count(decoder, "num_hidden_layers"),
            heads=_count(decoder, "num_attention_heads"),
            kv_heads=_count(decoder, "num_key_value_heads"),
            head_size=_count(decoder, "head_size"),
            intermediate_size=gate_up.shape[0] // 2,
            vocabulary_size=_count(config, "vocab_size"),
            norm_epsilon=self._epsilon(),
            tied_head=tied,
            max_positions=positions,
            sliding_window=self._window(),
            rope=rope,
        )
        fault = fault_of(architecture)
        if fault is not None:
            raise ArtifactError(f"{CONFIG} and the graph describe no network: {fault}")
        return architecture

    def _window(self) -> int | None:
        for node in self._first("GroupQueryAttention"):
            if (window := integer(node, "local_window_size", -1)) > 0:
                return window
        stated = self._stated("sliding_window")
        if not isinstance(stated, int | None):
            raise ArtifactError(
                f"the graph's {ARCHITECTURE_KEY} is malformed: a window of {shown(stated)}"
            )
        return stated

    def _stated(self, field: str) -> Any:  # noqa: ANN401 (any JSON value)
        text = self._file.model.metadata_props.get(ARCHITECTURE_KEY)
        if text is None:
            return None
        try:
            return parse_json(text)[field]
        except (ValueError, KeyError, TypeError) as error:
            raise ArtifactError(f"the graph's {ARCHITECTURE_KEY} is malformed ({error})") from error

    def _stated_rope(self) -> Rope | None:
        stated = self._stated("rope")
        if stated is None:
            return None
        try:
            long = stated["long"]
            return Rope(
                float(stated["theta"]),
                int(stated["dimensions"]),
                LongRope(
                    tuple(map(float, long["short_factors"])),
                    tuple(map(float, long["long_factors"])),
                    int(long["original_positions"]),
                    float(long["attention_factor"]),
                )
                if long
                else None,
            )
        except (ValueError, KeyError, TypeError) as error:
            raise ArtifactError(f"the graph's {ARCHITECTURE_KEY} is malformed ({error})") from error

    def _epsilon(self) -> float:
        epsilon = self._stated("norm_epsilon")
        for node in self._first("SkipSimplifiedLayerNormalization"):
            epsilon = real(node, "epsilon")
        if not isinstance(epsilon, int | float):
            raise ArtifactError("the graph has no norm of a kind that is known")
        return float(epsilon)

    def _first(self, op: str) -> Iterator[ir.Node]:
        """The first operator `op`, if there is one."""
        return islice((node for node in self._file.nodes if node.op_type == op), 1)

    def _check_shapes(self) -> None:
        for weight in self._architecture.weights():
            shape = self._matrices[weight.name].shape
            if shape != weight.shape:
                raise ArtifactError(
                    f"{weight.name} should have shape {list(weight.shape)}, found {list(shape)}"
                )


def open_artifact(path: Path) -> OnnxArtifact:
    """Open the ONNX artifact at `path`."""
    return OnnxArtifact(path)


def _read_config(path: Path) -> Mapping[str, Any]:
    model = _mapping(foreign.read_object(path / CONFIG, foreign.RUNTIME_SETTINGS, path), "model")
    if model.get("type") != MODEL_TYPE:
        raise ArtifactError(
            f"expected a model of type {MODEL_TYPE!r} in {CONFIG}, found {shown(model.get('type'))}"
        )
    return model


def _mapping(document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = document.get(key)
    if not isinstance(value, dict):
        raise ArtifactError(f"{key} in {CONFIG} should be an object, found {shown(value)}")
    return value


def _count(document: Mapping[str, Any], key: str) -> int:
    value = document.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ArtifactError(f"{key} in {CONFIG} should be a positive integer, found {shown(value)}")
    return value
