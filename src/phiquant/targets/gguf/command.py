"""How an artifact is run: by llama.cpp's own program, or in Python by the package that brings it.

llama.cpp picks LongRoPE's factors by the context that it is given, so both name one.
"""

import re
from importlib.util import find_spec
from pathlib import Path

from phiquant.targets.gguf.artifact import GgufArtifact
from phiquant.targets.gguf.locate import gguf_files

CONTEXT = 4096
"""Tokens for which the line in Python makes room in the cache, at most."""


def command(path: Path) -> str:
    """The line for llama-cli, which talks with the user, typed in the directory `path`."""
    long = GgufArtifact(path).architecture.rope.long
    context = f" -c {long.original_positions}" if long else ""
    return f'llama-cli -m {_name(path)}{context} -cnv -p "You are a helpful assistant."'


def command_here(path: Path) -> str | None:
    """The line for xllamacpp, typed in the directory `path`; None where that is not installed."""
    if find_spec("xllamacpp") is None:
        return None
    architecture = GgufArtifact(path).architecture
    context = min(CONTEXT, architecture.max_positions)
    if architecture.rope.long is not None:
        context = min(context, architecture.rope.long.original_positions)
    return (
        'python -c "import xllamacpp as x; p = x.CommonParams(); p.verbosity = 0; '
        f"p.n_ctx = {context}; p.model.path = '{_name(path)}'; "
        "print(x.Server(p).handle_chat_completions({'max_tokens': 200, 'messages': "
        "[{'role': 'user', 'content': 'Why is the sky blue?'}]})['choices'][0]['message']"
        "['content'])\""
    )


def _name(path: Path) -> str:
    """The file's name, if it can be typed as it is; a stranger may have called it anything."""
    name = gguf_files(path)[0].name
    return name if re.fullmatch(r"\w[\w.+-]*", name) else "MODEL.gguf"
