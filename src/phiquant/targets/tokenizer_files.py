"""The tokenizer of an artifact that takes the checkpoint's own files (MLX, ONNX).

They are read and checked before anything is written. Two differ from the checkpoint's: what would
have code imported (`auto_map`) is left out, and `generation_config.json` names the whole set of
tokens that end a text, because runtimes let it replace the set in their own config. A checkpoint
with nothing but a SentencePiece model gets the equivalent `tokenizer.json`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from phiquant.phi.checkpoint import Checkpoint
from phiquant.phi.tokenizer.special_tokens import SpecialTokens, read_document

COPIED = (
    "tokenizer.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
)
"""Copied byte by byte where the checkpoint has them."""

REWRITTEN = ("tokenizer_config.json", "generation_config.json")


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


def read_tokenizer_files(checkpoint: Checkpoint) -> TokenizerFiles:
    """Read and check the checkpoint's tokenizer.

    Raises TokenizerError; see `phi.tokenizer.tokenizer.read_tokenizer`.
    """
    directory, tokenizer = checkpoint.directory, checkpoint.tokenizer
    ends = tokenizer.special.ends
    files = {
        name: (directory / name).read_bytes() for name in COPIED if (directory / name).is_file()
    }
    if "tokenizer.json" not in files:
        files["tokenizer.json"] = tokenizer.document.encode()
    for name in REWRITTEN:
        content = read_document(directory / name)
        content.pop("auto_map", None)
        if name == "generation_config.json" and content and ends:
            content["eos_token_id"] = list(ends)
        if content:
            files[name] = _json(content)
    return TokenizerFiles(files, tokenizer.special)


def _json(content: Mapping[str, object]) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()
