"""Where a checkpoint comes from: a local directory, or a model on the Hugging Face hub.

Of a model on the hub only configuration, safetensors and tokenizer files are fetched, never
code. The hub's own cache, token and offline mode (`HF_HOME`, `HF_TOKEN`, `HF_HUB_OFFLINE`)
apply.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from phiquant.errors import InputError, MissingDependency
from phiquant.phi.model_name import name_directory, read_model_name

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "additional_chat_templates/*.jinja",
)
WANTED = (
    "config.json",
    "generation_config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    *TOKENIZER_FILES,
    "README.md",
    "LICENSE*",
)


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
    """The directory of `model`, in any of the words that `model_name` lists.

    A model on the hub is fetched: of its files, those that match `wanted`. Raises InputError if
    no such directory or model exists, RequestError for a revision that contradicts the address.
    """
    named = read_model_name(model, revision)
    if named.directory is not None:
        return Source(named.directory, named.name, named.hub_id, named.revision)
    assert named.hub_id is not None
    return _fetch(named.hub_id, named.revision, wanted)


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
        state = hub_id if revision is None else f"{hub_id} at {revision}"
        raise InputError(
            f"{state} is not in the local cache and the hub cannot be reached; "
            "connect, unset HF_HUB_OFFLINE, or give a local directory"
        ) from error
    return Source(directory, hub_id.rpartition("/")[2], hub_id, name_directory(directory).revision)
