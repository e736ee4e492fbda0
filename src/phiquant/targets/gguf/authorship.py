"""What a file says about the model as a whole: the `general` fields by which clients list models.

They are those of llama.cpp's own converter, by the rules of the `gguf` package (`Metadata` in
gguf/metadata.py): the model's name is taken apart ("Phi-4-mini-instruct": basename Phi-4, size
label mini, finetune instruct) and written as a title; licence, languages, tags, base models and
whatever else is known come from the front matter of the model's README.md. What the checkpoint
does not say is left out. `general.name` is fitted once more, to llama.cpp's rule for white space.
"""

from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any, TypeGuard

from phiquant.errors import MissingDependency
from phiquant.phi.checkpoint import Checkpoint
from phiquant.phi.front_matter import front_matter

LONGEST = 1000
"""Characters of a text in a card, and entries of a list."""
MOST_BRACKETS = 1000
"""In a card's front matter: yaml takes time by the square of those that nothing closes."""
LEFT_OUT = ("datasets", "dataset", "dataset_sources")
"""Of no use to those who run the model."""

PLAIN = (
    "author",
    "version",
    "organization",
    "finetune",
    "basename",
    "description",
    "size_label",
    "license_name",
    "license_link",
)
"""Fields that are one text."""
OF_BASE_MODELS = ("name", "author", "version", "organization", "repo_url")

Fields = dict[str, str | int | tuple[str, ...]]


def model_title(checkpoint: Checkpoint) -> str:
    """The model's name for people: "Phi 4 Mini Instruct"."""
    name = _metadata(checkpoint).name
    return " ".join(name.split()) if _is_text(name) else checkpoint.name


def general_fields(checkpoint: Checkpoint) -> Fields:
    """Every `general` field about the model but its name. Raises MissingDependency."""
    metadata = _metadata(checkpoint)
    fields = {name: getattr(metadata, name) for name in PLAIN}
    fields["size_label"] = fields["size_label"] or _size_label(_weights(checkpoint))
    licences = _texts(metadata.license)
    return {
        **{f"general.{name}": value for name, value in fields.items() if _is_text(value)},
        **({"general.license": ",".join(licences)} if licences else {}),
        **dict(_base_models(metadata.base_models)),
        **{
            f"general.{name}": texts
            for name in ("tags", "languages")
            if (texts := _texts(getattr(metadata, name)))
        },
    }


def _metadata(checkpoint: Checkpoint) -> Any:  # noqa: ANN401 (a gguf.Metadata, without types)
    try:
        from gguf import Metadata
    except ImportError as error:
        raise MissingDependency("gguf", "writing GGUF files") from error
    # The model is called after its directory at most; the converter's rules take a path for that.
    name = Path(checkpoint.name.replace("_", "-"))
    weights = _weights(checkpoint)
    try:
        card = _card(checkpoint.directory)
        return Metadata.apply_metadata_heuristic(Metadata(), card, None, name, weights)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):  # a card like no other
        return Metadata.apply_metadata_heuristic(Metadata(), {}, None, name, weights)


def _card(directory: Path) -> dict[str, Any]:
    """The front matter of the model's README.md: texts, and lists; empty if it cannot be read."""
    import yaml  # type: ignore[import-untyped]  # a dependency of gguf

    text = front_matter(directory)
    if text.count("[") + text.count("{") > MOST_BRACKETS:
        return {}
    try:
        # This loader makes texts of all scalars: `no` is a language, and 1.0 a version.
        card = yaml.load(text, Loader=yaml.BaseLoader)
    except (yaml.YAMLError, RecursionError):
        return {}
    if not isinstance(card, dict):
        return {}
    return {
        name: _short(value)
        for name, value in card.items()
        if isinstance(name, str) and name not in LEFT_OUT and isinstance(value, str | list)
    }


def _short(value: str | list[Any]) -> str | list[str]:
    """The value, or the texts in it, no longer than is of use."""
    if isinstance(value, str):
        return value[:LONGEST]
    return [entry[:LONGEST] for entry in value[:LONGEST] if isinstance(entry, str)]


def _weights(checkpoint: Checkpoint) -> int:
    return sum(prod(weight.shape) for weight in checkpoint.architecture.weights())


def _size_label(weights: int) -> str:
    from gguf.utility import size_label

    return str(size_label(weights, 0, 0, 0))


def _is_text(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and bool(value.strip())


def _texts(value: object) -> tuple[str, ...]:
    """The texts in a value of the front matter, which may be one or a list."""
    entries = value if isinstance(value, list) else [value]
    return tuple(dict.fromkeys(entry for entry in entries if _is_text(entry)))


def _base_models(models: object) -> Iterator[tuple[str, str | int]]:
    entries = models if isinstance(models, list) else []
    named = [
        entry for entry in entries if isinstance(entry, Mapping) and _is_text(entry.get("name"))
    ]
    if not named:
        return
    yield "general.base_model.count", len(named)
    for number, model in enumerate(named):
        for field in OF_BASE_MODELS:
            if _is_text(model.get(field)):
                yield f"general.base_model.{number}.{field}", model[field]
