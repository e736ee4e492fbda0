"""Every parser of files by other hands: sound files, how they are changed, and what reads them."""

import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from attacks.gguf_files import imatrix, legacy
from command_line import call
from fuzzing.mutation import of_bytes, of_gguf, of_header, of_json, of_proto, of_text
from phiquant.calibration.text import read_sample
from phiquant.devices.table import read_user_devices
from phiquant.evaluation.manifest import read_manifest
from phiquant.evaluation.rendering import render
from phiquant.phi.architecture import Architecture
from phiquant.phi.checkpoint import Checkpoint
from phiquant.phi.config import read_architecture, read_config
from phiquant.phi.lora.adapted import adapted
from phiquant.phi.safetensors_file import read_header, read_metadata
from phiquant.phi.source import Source
from phiquant.phi.tokenizer.chat_templates import written_tokens
from phiquant.phi.tokenizer.template_white_space import explicit_white_space, plain_line_ends
from phiquant.phi.tokenizer.tokenizer import read_tokenizer
from phiquant.recommendation.losses import read_verified
from phiquant.reporting.card import card
from phiquant.targets.gguf.authorship import general_fields
from phiquant.targets.gguf.importance import read_importance
from phiquant.targets.gguf.vocabulary import vocabulary
from phiquant.targets.mlx import admission as mlx_admission
from phiquant.targets.onnx import admission as onnx_admission
from phiquant.targets.openvino import admission as openvino_admission
from phiquant.targets.table import target
from phiquant.targets.tokenizer_files import read_tokenizer_files
from tiny_models import longrope, write_tiny_checkpoint
from tiny_tokenizer import CHAT_TEMPLATE, as_model_file, write_tiny_tokenizer

SIZE = 384
SHAPE = {"hidden_size": 64, "num_hidden_layers": 1, "vocab_size": SIZE, "intermediate_size": 64}
TARGETS = ("gguf", "mlx", "onnx", "openvino")

Mutation = Callable[..., bytes]


@dataclass(frozen=True)
class Parser:
    """One parser."""

    name: str
    directory: str
    """Of the sound files (`Sound`), a copy of which the changed file is put into."""
    file: str
    mutations: tuple[Mutation, ...]
    read: Callable[[Path], object]
    """Reads the directory; whatever is not a PhiquantError is a finding."""
    slow: bool = False
    """Each reading starts a process."""


def write_sound(place: Path) -> None:
    """The sound files: checkpoints and artifacts as small as they can be, and single files."""
    checkpoint = write_tiny_checkpoint(place / "checkpoint", **SHAPE, **longrope(16))
    write_tiny_tokenizer(checkpoint, SIZE)
    (checkpoint / "README.md").write_text(CARD)
    _write_adapter(place / "adapter")
    spaced = write_tiny_checkpoint(place / "sentencepiece", **SHAPE)
    write_tiny_tokenizer(spaced, SIZE, "sentencepiece")
    as_model_file(spaced)
    for kind, file, data in (
        ("devices", "devices.toml", DEVICES.encode()),
        ("imatrix", "matrix.gguf", imatrix(*MATRIX_GGUF)),
        ("imatrix", "matrix.dat", legacy((ENTRY, 3, ONES))),
        ("texts", "text.jsonl", TEXTS.encode()),
        ("templates", "template.jinja", TEMPLATE.encode()),
    ):
        (place / kind).mkdir(exist_ok=True)
        (place / kind / file).write_bytes(data)
    for name in TARGETS:
        ended = call("quantize", checkpoint, "--to", name, "-o", place / name, "-q")
        assert ended.code == 0, ended.err
    for file in (place / "gguf").glob("*.gguf"):
        file.rename(file.with_name("model.gguf"))
    record = place / "gguf" / "phiquant.json"
    verified = {"verification": {"passed": True, "figures": {"mean": {"value": 0.1}}}}
    record.write_text(json.dumps(json.loads(record.read_text()) | verified))


CARD = """---
license: mit
language: [en, de]
base_model: microsoft/Phi-4-mini-instruct
tags: [phi, "4-bit"]
---
# A model
"""
DEVICES = """[engine.mine]
target = "gguf"
provider = "cpu"
computes = ["int4"]
efficiency = 0.5
basis = "a guess"
most_context = 4096
[engine.mine.types]
int4 = ["Q4_K_M"]
[[engine.mine.refuses]]
types = ["Q2*"]
why = "too coarse"
[board]
title = "Board"
class = "iot"
memory_gib = 8
usable_gib = 6.5
bandwidth_gbs = 10
engines = ["mine", "gguf-cpu-arm"]
source = "its label"
verified = true
[larger]
like = "board"
memory_gib = 16
"""
ENTRY = "blk.0.ffn_down.weight"
ONES = [1.0] * 64
MATRIX_GGUF = ((f"{ENTRY}.in_sum2", (64,), ONES), (f"{ENTRY}.counts", (1,), [3.0]))
TEXTS = "\n".join(
    json.dumps(line)
    for line in (
        {"text": "The quick brown fox jumps over the lazy dog."},
        {
            "messages": [
                {"role": "user", "content": "Why?"},
                {"role": "assistant", "content": "So."},
            ]
        },
        {"messages": [{"role": "system", "content": None, "tools": [{"name": "f"}]}]},
        {"messages": [{"role": "tool", "content": "7", "tool_calls": [1]}]},
    )
)
TEMPLATE = (
    "{%- if tools is defined -%}\n{# none #}{% raw %}{{ x }}{% endraw %}\n{%- endif %}\n"
    + CHAT_TEMPLATE
    + "{{- bos_token | trim + '\\n' -}}\n{% generation %}a{% endgeneration %}"
)


class _Known:
    """What is read once for all: an architecture and a tokenizer."""

    architecture: Architecture
    checkpoint: Checkpoint


def prepare(place: Path) -> None:
    """Read what several parsers need, from the sound files in `place`."""
    _Known.checkpoint = Checkpoint.open(place / "checkpoint")
    _Known.architecture = _Known.checkpoint.architecture
    _Known.checkpoint.tokenizer.encode("x")


# What reads a directory


def _write_adapter(place: Path) -> None:
    """Of a matrix that is fused, of a part of one, and of the embedding."""
    place.mkdir()
    shapes = {
        "model.layers.0.mlp.down_proj.lora_A.weight": (2, 64),
        "model.layers.0.mlp.down_proj.lora_B.weight": (64, 2),
        "model.layers.0.self_attn.v_proj.lora_A.weight": (3, 64),
        "model.layers.0.self_attn.v_proj.lora_B.weight": (32, 3),
        "model.embed_tokens.lora_embedding_A": (2, SIZE),
        "model.embed_tokens.lora_embedding_B": (64, 2),
        "model.norm.weight": (64,),
    }
    tensors = {f"base_model.model.{name}": np.ones(shape, "f4") for name, shape in shapes.items()}
    save_file(tensors, place / "adapter_model.safetensors")
    settings = {
        "peft_type": "LORA",
        "r": 2,
        "lora_alpha": 4,
        "use_rslora": True,
        "rank_pattern": {"v_proj": 3},
        "alpha_pattern": {"^model.layers.0.mlp.down_proj": 8},
        "init_lora_weights": True,
        "target_modules": ["v_proj"],
    }
    (place / "adapter_config.json").write_text(json.dumps(settings))


def _config(directory: Path) -> None:
    read_architecture(read_config(directory))


def _weights(directory: Path) -> None:
    read_header(directory / "model.safetensors", directory)
    read_metadata(directory / "model.safetensors", directory)
    Checkpoint.open(directory)


def _adapter(directory: Path) -> None:
    checkpoint = adapted(_Known.checkpoint, Source(directory, "adapter"))
    with np.errstate(all="ignore"):
        for name in checkpoint.products:
            checkpoint.weight(name, 1, 5)


def _tokenizer(directory: Path) -> None:
    tokenizer = read_tokenizer(directory, SIZE)
    tokenizer.decode(tokenizer.encode("Is it 1,234 or\n<|end|>  naïve 中?")[:20])
    vocabulary(tokenizer, SIZE)


def _tokenizer_graph(directory: Path) -> None:
    openvino_admission.check_graph(directory / "openvino_tokenizer.xml", extensions=True)


def _companions(directory: Path) -> None:
    _tokenizer(directory)
    read_tokenizer_files(Checkpoint.open(directory))


def _artifact(name: str, path: str = "") -> Callable[[Path], None]:
    def read(directory: Path) -> None:
        place = directory / path
        if not target(name).recognises(place):
            return
        artifact = target(name).open(place)
        architecture = artifact.architecture
        artifact.entries()
        assert isinstance(artifact.type, str)
        with np.errstate(all="ignore"):
            for weight in architecture.weights()[:4]:
                artifact.weight(weight.name, 0, 2)

    return read


def _matrix(file: str) -> Callable[[Path], None]:
    return lambda directory: read_importance(directory / file, _Known.architecture)


def _record(directory: Path) -> None:
    manifest = read_manifest(directory)
    if manifest is not None:
        with suppress(AttributeError, KeyError, TypeError, ValueError):  # `record_verification` too
            card(directory, manifest)
    read_verified([directory])


def _samples(directory: Path) -> None:
    read_sample(directory / "text.jsonl", _Known.checkpoint.tokenizer, 2, 8)


def _template(directory: Path) -> None:
    text = (directory / "template.jinja").read_bytes().decode(errors="replace")
    explicit_white_space(plain_line_ends(text))
    written_tokens(text, ("<|user|>", "<|end|>"))


def _rendering(directory: Path) -> None:
    text = (directory / "template.jinja").read_bytes().decode(errors="replace")
    render(text, [{"role": "user", "content": "Why?"}], {"bos_token": "<s>"})


def _front_matter(directory: Path) -> None:
    general_fields(Checkpoint.open(directory))


JSON = (of_json, of_json, of_json, of_bytes)
GGUF = (of_gguf, of_gguf, of_bytes)
PARSERS = {
    parser.name: parser
    for parser in (
        Parser("config", "checkpoint", "config.json", JSON, _config),
        Parser("safetensors", "checkpoint", "model.safetensors", (of_header, of_bytes), _weights),
        Parser("adapter_config", "adapter", "adapter_config.json", JSON, _adapter),
        Parser("adapter", "adapter", "adapter_model.safetensors", (of_header, of_bytes), _adapter),
        Parser("tokenizer.json", "checkpoint", "tokenizer.json", JSON, _tokenizer),
        Parser(
            "tokenizer.model", "sentencepiece", "tokenizer.model", (of_proto, of_bytes), _tokenizer
        ),
        Parser("tokenizer_config", "checkpoint", "tokenizer_config.json", JSON, _companions),
        Parser("generation_config", "checkpoint", "generation_config.json", JSON, _companions),
        Parser("special_tokens_map", "checkpoint", "special_tokens_map.json", JSON, _companions),
        Parser("card", "checkpoint", "README.md", (of_text, of_bytes), _front_matter),
        Parser("gguf", "gguf", "model.gguf", GGUF, _artifact("gguf", "model.gguf")),
        Parser("mlx config", "mlx", "config.json", JSON, _artifact("mlx")),
        Parser("mlx weights", "mlx", "model.safetensors", (of_header, of_bytes), _artifact("mlx")),
        Parser(
            "onnx graph", "onnx", "model.onnx", (of_proto, of_proto, of_bytes), _artifact("onnx")
        ),
        Parser("genai_config", "onnx", "genai_config.json", JSON, _artifact("onnx")),
        Parser(
            "openvino graph",
            "openvino",
            "openvino_model.xml",
            (of_text, of_bytes),
            _artifact("openvino"),
        ),
        Parser("openvino config", "openvino", "config.json", JSON, _artifact("openvino")),
        Parser("mlx admission", "mlx", "config.json", JSON, mlx_admission.check_artifact),
        Parser(
            "tokenizer admission",
            "mlx",
            "tokenizer_config.json",
            JSON,
            mlx_admission.check_artifact,
        ),
        Parser("onnx admission", "onnx", "genai_config.json", JSON, onnx_admission.check_artifact),
        Parser(
            "onnx graph admission",
            "onnx",
            "model.onnx",
            (of_proto, of_proto, of_bytes),
            onnx_admission.check_artifact,
        ),
        Parser(
            "openvino admission",
            "openvino",
            "openvino_tokenizer.xml",
            (of_text, of_bytes),
            _tokenizer_graph,
        ),
        Parser("imatrix gguf", "imatrix", "matrix.gguf", GGUF, _matrix("matrix.gguf")),
        Parser("imatrix dat", "imatrix", "matrix.dat", (of_bytes,), _matrix("matrix.dat")),
        Parser("record", "gguf", "phiquant.json", JSON, _record),
        Parser(
            "devices",
            "devices",
            "devices.toml",
            (of_text, of_bytes),
            lambda directory: read_user_devices(directory / "devices.toml"),
        ),
        Parser("texts", "texts", "text.jsonl", (of_text, of_json, of_bytes), _samples),
        Parser("template", "templates", "template.jinja", (of_text, of_bytes), _template),
        Parser(
            "rendering", "templates", "template.jinja", (of_text, of_bytes), _rendering, slow=True
        ),
    )
}


def copy_for(parser: Parser, sound: Path, place: Path) -> Path:
    """A copy of the parser's directory; returns the path of the file that is to be changed."""
    shutil.copytree(sound / parser.directory, place)
    return place / parser.file
