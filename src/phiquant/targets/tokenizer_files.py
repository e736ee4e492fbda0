"""The tokenizer of an artifact that takes the checkpoint's own files (MLX, ONNX, OpenVINO).

They are read and checked before anything is written. Two differ from the checkpoint's:

- `tokenizer_config.json` holds the one chat template that transformers uses, wherever the
  checkpoint has it, as a text, because runtimes disagree about which of several places goes first;
  tokens with a role by their text, which the loaders of OpenVINO and of transformers 5 want; and
  nothing that would have code imported (`auto_map`);
- `generation_config.json` names the whole set of tokens that end a text, because runtimes let it
  replace the set in their own config.

A checkpoint with nothing but a SentencePiece model gets the equivalent `tokenizer.json`.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phiquant.host import foreign
from phiquant.phi.checkpoint import Checkpoint
from phiquant.phi.tokenizer.chat_templates import DEFAULT
from phiquant.phi.tokenizer.documents import read_document
from phiquant.phi.tokenizer.special_tokens import SpecialTokens

COPIED: Mapping[str, foreign.FileKind] = {
    "tokenizer.json": foreign.TOKENIZER,
    "tokenizer.model": foreign.TOKENIZER_MODEL,
    "special_tokens_map.json": foreign.TOKENIZER_SETTINGS,
    "added_tokens.json": foreign.TOKENIZER_SETTINGS,
    "vocab.json": foreign.VOCABULARY,
    "merges.txt": foreign.VOCABULARY,
}
"""Copied byte by byte where the checkpoint has them."""

TOKEN_LISTS = ("additional_special_tokens", "extra_special_tokens")
"""Fields of tokenizer_config.json with several tokens: a list, or an object by role."""


@dataclass(frozen=True, slots=True)
class TokenizerFiles:
    """What an artifact takes over from a checkpoint's tokenizer."""

    files: Mapping[str, bytes]
    """File name → content."""
    special: SpecialTokens
    """The tokens with a role."""

    @property
    def ends(self) -> tuple[int, ...]:
        """Every token that ends a generation, ascending."""
        return self.special.ends

    @property
    def notes(self) -> tuple[str, ...]:
        """What the artifact does without, in sentences."""
        return left_out_templates(self.special)


def left_out_templates(special: SpecialTokens) -> tuple[str, ...]:
    """A sentence on the chat templates that go by other names, if there are any."""
    others = [name for name, _ in special.chat_templates if name != DEFAULT]
    if not others:
        return ()
    return (
        "runtimes of this format take one chat template, so the checkpoint's templates by other "
        f"names are left out: {', '.join(others)}",
    )


def read_tokenizer_files(
    checkpoint: Checkpoint, restate: Callable[[str], str] = str
) -> TokenizerFiles:
    """Read and check the checkpoint's tokenizer; `restate` makes of its chat template what the
    runtime's engine renders alike.

    Raises TokenizerError; see `phi.tokenizer.tokenizer.read_tokenizer`.
    """
    directory, tokenizer = checkpoint.tokenizer_directory, checkpoint.tokenizer
    special = tokenizer.special
    files = {
        name: foreign.read_bytes(directory / name, kind, directory)
        for name, kind in COPIED.items()
        if foreign.present(directory / name)
    }
    if "tokenizer.json" not in files:
        files["tokenizer.json"] = tokenizer.document.encode()
    template = None if special.chat_template is None else restate(special.chat_template)
    for name, content in (
        ("tokenizer_config.json", _tokenizer_config(directory, template)),
        ("generation_config.json", _generation_config(checkpoint.directory, special)),
    ):
        if content:
            files[name] = json_file(content)
    return TokenizerFiles(files, special)


def _tokenizer_config(directory: Path, template: str | None) -> dict[str, Any]:
    content = read_document(directory / "tokenizer_config.json")
    taken = {
        name: _as_text(value) if name.endswith("_token") or name in TOKEN_LISTS else value
        for name, value in content.items()
        # Null for a role says that no token has it; loaders do not take it elsewhere.
        if name not in ("auto_map", "chat_template")
        and (value is not None or name.endswith("_token"))
    }
    return taken if template is None else taken | {"chat_template": template}


def _as_text(value: object) -> object:
    """A token by its text, where it is an object with flags (tokenizer.json has those too)."""
    if isinstance(value, list):
        return [_as_text(entry) for entry in value]
    if not isinstance(value, Mapping):
        return value
    if isinstance(value.get("content"), str):
        return value["content"]
    return {name: _as_text(entry) for name, entry in value.items()}


def _generation_config(directory: Path, special: SpecialTokens) -> dict[str, Any]:
    content = read_document(directory / "generation_config.json")
    content.pop("auto_map", None)
    if content and special.ends:
        content["eos_token_id"] = list(special.ends)
    return content


def json_file(content: Mapping[str, Any]) -> bytes:
    """The bytes of a JSON file with `content`."""
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()
