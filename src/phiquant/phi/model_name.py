"""What a word that names a model means: a directory on disk, or a model on the Hugging Face hub.

| word | means |
| --- | --- |
| a path, `file:///path` | the directory |
| `org/name` | the model on the hub |
| `https://huggingface.co/org/name`, `hf.co/org/name`, `hf://org/name` | the same |
| `…/tree/REVISION`, `hf://org/name@REVISION` | its state at a branch, tag or commit |
| `Phi-4-mini-instruct`, … | the published model of that name |

Nothing is fetched here; `source` does that.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

from phiquant.errors import InputError, RequestError
from phiquant.host.kinds import PLACE, WORD, optional
from phiquant.phi.published import near, published_id

HUB_HOSTS = ("huggingface.co", "www.huggingface.co", "hf.co")
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
NO_MODELS = ("collections", "datasets", "docs", "models", "organizations", "papers", "spaces")
"""What the hub's addresses may begin with where they lead to something other than a model."""
SCHEME = re.compile(r"(https?|hf|file):/+", re.IGNORECASE)
"""One slash will do: a `Path` that was made of an address has lost the other."""
SNAPSHOT = re.compile(r"models--(?:([^/]+?)--)?([^/]+)")
"""The folder of a model in the hub's cache; its states lie in `snapshots`, named by commit."""


@dataclass(frozen=True, slots=True)
class ModelName:
    """Where a model is. One of `directory` and `hub_id` is given, or both for a snapshot in the
    hub's cache.
    """

    name: str
    """What the model is called: for file names, cards and metadata."""
    directory: Path | None = None
    hub_id: str | None = None
    revision: str | None = None
    """The branch, tag or commit that was asked for; None for the newest state."""


def read_model_name(model: str | os.PathLike[str], revision: str | None = None) -> ModelName:
    """What `model` names, at `revision` if that is given.

    Raises InputError for a word that names neither a directory nor a model on the hub, and
    RequestError for a revision that contradicts the address or cannot apply to a directory.
    """
    PLACE.check(model=model)
    optional(WORD).check(revision=revision)
    word = os.fspath(model)
    if (scheme := SCHEME.match(word)) is not None:
        return _address(word, scheme[1].lower(), word[scheme.end() :], revision)
    path = _expanded(word)
    if path.is_dir():
        return _directory(path, revision)
    if path.exists():
        raise InputError(
            f"expected a checkpoint directory, found the file {word}; give the "
            f"directory {path.parent}"
        )
    if word.split("/", maxsplit=1)[0].lower() in _hosts():
        return _on_hub(word, urlsplit(f"https://{word}").path, revision)
    hub_id = word.rstrip("/") if HUB_ID.fullmatch(word.rstrip("/")) else published_id(word)
    if hub_id is None:
        raise InputError(
            f"there is no directory {word}{_meant(word)}; give a checkpoint's directory, a Hugging "
            "Face id such as microsoft/Phi-4-mini-instruct, or the address of its page"
        )
    return ModelName(hub_id.rpartition("/")[2], None, hub_id, revision)


def _meant(word: str) -> str:
    names = near(word)
    return f"; did you mean {' or '.join(names)}?" if names else ""


def name_directory(directory: Path) -> ModelName:
    """What the model in `directory` is called, and its hub id and commit where the path tells.

    That is the directory's own name, but for a snapshot in the hub's cache, which is named by its
    commit: the model's name stands two folders above.
    """
    directory = directory.resolve()
    home = directory.parent.parent.name if directory.parent.name == "snapshots" else ""
    if (match := SNAPSHOT.fullmatch(home)) is not None:
        hub_id = "/".join(part for part in match.groups() if part)
        return ModelName(match[2], directory, hub_id, directory.name)
    # Names go into records and metadata, which are UTF-8; a file system's need not be.
    return ModelName(directory.name.encode(errors="replace").decode(), directory)


def _expanded(word: str) -> Path:
    try:
        return Path(word).expanduser()
    except RuntimeError as error:  # "~name", and there is no such person
        raise InputError(f"there is no home directory for {word}") from error


def _directory(path: Path, revision: str | None) -> ModelName:
    name = name_directory(path)
    if revision is not None and revision != name.revision:
        raise RequestError(
            f"a revision is a state of a model on the hub, and {path} is a directory; leave the "
            f"revision {revision!r} out, or give the model's hub id"
        )
    return name


def _hosts() -> set[str]:
    """The hub's hosts, and that of the mirror which `HF_ENDPOINT` names."""
    mirror = urlsplit(os.environ.get("HF_ENDPOINT", "")).netloc.lower()
    return {*HUB_HOSTS, mirror} - {""}


def _address(word: str, scheme: str, rest: str, revision: str | None) -> ModelName:
    if scheme == "file":
        return _local(word, revision)
    if scheme == "hf":
        hub_id, _, state = rest.partition("@")
        return _on_hub(word, f"{hub_id}/tree/{state}" if state else hub_id, revision)
    host, _, path = rest.partition("/")
    if host.lower() not in _hosts():
        raise InputError(f"expected an address of huggingface.co, found {word}")
    return _on_hub(word, urlsplit(f"https://host/{path}").path, revision)


def _local(word: str, revision: str | None) -> ModelName:
    try:
        address = urlsplit(word)
    except ValueError as error:
        raise InputError(f"expected file:///path, found {word}") from error
    if address.netloc not in ("", "localhost"):
        raise InputError(f"expected a path on this machine (file:///path), found {word}")
    path = Path(url2pathname(address.path))
    if not path.is_dir():
        raise InputError(f"expected a checkpoint directory, and there is none at {word}")
    return _directory(path, revision)


def _on_hub(word: str, path: str, revision: str | None) -> ModelName:
    """The model whose page has the path `path` below the hub's host."""
    parts = [unquote(part) for part in path.split("/") if part]
    hub_id, state = "/".join(parts[:2]), _revision_in(parts[2:])
    is_model = bool(HUB_ID.fullmatch(hub_id)) and parts[0] not in NO_MODELS
    if not is_model or (parts[2:] and state is None):
        raise InputError(
            "expected the address of a model's page (https://huggingface.co/ORG/NAME, with "
            f"/tree/REVISION if need be), found {word}"
        )
    if state is not None and revision is not None and state != revision:
        raise RequestError(
            f"{word} names the revision {state!r}, and the request the revision {revision!r}; give "
            "one of the two"
        )
    return ModelName(parts[1], None, hub_id, state or revision)


def _revision_in(parts: list[str]) -> str | None:
    """The revision in what follows a model's id in the path of an address; None if none is."""
    if len(parts) == 2 and parts[0] in ("tree", "commit"):
        return parts[1]
    if len(parts) == 4 and parts[:3] == ["tree", "refs", "pr"]:
        return "/".join(parts[1:])
    return None
