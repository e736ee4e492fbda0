"""Where a checkpoint comes from: a local directory, or a Hugging Face model id.

Of a model on the hub only configuration, safetensors and tokenizer files are fetched, never
code. The hub's own cache, token and offline mode (`HF_HOME`, `HF_TOKEN`, `HF_HUB_OFFLINE`)
apply.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from phiquant.errors import InputError, MissingDependency

WANTED = (
    "config.json",
    "generation_config.json",
    "*.safetensors",
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "README.md",
    "LICENSE*",
)
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True, slots=True)
class Source:
    """A checkpoint's directory, and the name it goes by."""

    directory: Path
    name: str
    hub_id: str | None = None
    revision: str | None = None
    """The commit on the hub, where it is known."""


def locate(
    model: str | os.PathLike[str], revision: str | None = None, wanted: Sequence[str] = WANTED
) -> Source:
    """The directory for `model`, fetched from the hub if it is an id such as
    "microsoft/Phi-4-mini-instruct"; of such a one, the files that match `wanted`.

    Raises InputError if there is no such directory or model.
    """
    model = os.fspath(model)
    path = _expanded(model)
    if path.is_dir():
        directory = path.resolve()
        # Names go into records and metadata, which are UTF-8; a file system's need not be.
        return Source(directory, directory.name.encode(errors="replace").decode())
    if path.exists():
        raise InputError(f"expected a checkpoint directory, found the file {model}")
    if not HUB_ID.fullmatch(model):
        raise InputError(
            f"there is no directory {model}; give a checkpoint's directory or a Hugging Face id "
            "such as microsoft/Phi-4-mini-instruct"
        )
    return _fetch(model, revision, wanted)


def _expanded(model: str) -> Path:
    try:
        return Path(model).expanduser()
    except RuntimeError as error:  # "~name", and there is no such person
        raise InputError(f"there is no home directory for {model}") from error


def _fetch(hub_id: str, revision: str | None, wanted: Sequence[str]) -> Source:
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import (
            GatedRepoError,
            HFValidationError,
            LocalEntryNotFoundError,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )
    except ImportError as error:
        raise MissingDependency("huggingface-hub", f"fetching {hub_id}") from error
    try:
        directory = Path(snapshot_download(hub_id, revision=revision, allow_patterns=list(wanted)))
    except GatedRepoError as error:
        raise InputError(
            f"{hub_id} asks for your consent: accept its terms on its page, then log in with "
            "`hf auth login` or set HF_TOKEN"
        ) from error
    except RepositoryNotFoundError as error:
        raise InputError(
            f"there is neither a directory nor a Hugging Face model {hub_id}; "
            "if it is private, set HF_TOKEN"
        ) from error
    except HFValidationError as error:
        raise InputError(f"there is no directory {hub_id}, nor is it a model's id") from error
    except RevisionNotFoundError as error:
        raise InputError(f"{hub_id} has no revision {revision!r}") from error
    except LocalEntryNotFoundError as error:
        raise InputError(
            f"{hub_id} is not in the local cache and the hub cannot be reached; "
            "connect, unset HF_HUB_OFFLINE, or give a local directory"
        ) from error
    # The cache keeps each snapshot under .../snapshots/<commit>.
    commit = directory.name if directory.parent.name == "snapshots" else None
    return Source(directory, hub_id.rsplit("/", 1)[-1], hub_id, commit)
