"""Which tokens begin, end and pad, and the chat template: the files around a tokenizer.

    tokenizer_config.json    roles by text, add_bos_token, added tokens
    special_tokens_map.json  roles by text
    generation_config.json   roles by id; a list of ends
    config.json              roles by id; a list of ends
    added_tokens.json        more tokens: text → id

A role is taken from the first file in that order that names it; the ends are united from all,
because the published files disagree and a missing end is a model that does not stop. Chat
templates, which lie in files of several kinds, are found by `chat_templates`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phiquant.errors import TokenizerError
from phiquant.host.shown import shown
from phiquant.phi.tokenizer.chat_templates import DEFAULT, Templates, read_chat_templates
from phiquant.phi.tokenizer.documents import ROLES, read_document

END_OF_TURN = ("<|end|>", "<|im_end|>", "<|eot_id|>", "<|end_of_turn|>", "<end_of_turn>")
"""Texts that end a turn where the chat template writes them; most usual first."""

Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """The ids with a role; None where the checkpoint names none."""

    bos: int | None
    eos: int | None
    pad: int | None
    unk: int | None
    ends: tuple[int, ...]
    """Every id that ends a generation, ascending."""
    add_bos: bool
    add_eos: bool
    named: tuple[tuple[str, str], ...]
    """"bos_token" and so on with the text that the tokenizer's own files give it: the variables
    that a chat template finds."""
    chat_templates: Templates
    """Name and text; the one in use is called "default" and comes first."""

    @property
    def chat_template(self) -> str | None:
        """The text of the template in use, None where the checkpoint has none."""
        return dict(self.chat_templates).get(DEFAULT)


@dataclass(frozen=True, slots=True)
class CompanionFiles:
    """The parsed files around a tokenizer; an absent file is an empty mapping."""

    tokenizer_config: Document
    special_tokens_map: Document
    generation_config: Document
    config: Document
    added_tokens: Document
    chat_templates: Templates

    @classmethod
    def read(cls, directory: Path, beside: Path | None = None) -> "CompanionFiles":
        """Read what `directory` has; TokenizerError for files that will not do.

        The model's configuration is read in `beside`, where it lies in another directory.
        """
        model = directory if beside is None else beside
        tokenizer_config = read_document(directory / "tokenizer_config.json")
        return cls(
            tokenizer_config=tokenizer_config,
            special_tokens_map=read_document(directory / "special_tokens_map.json"),
            generation_config=read_document(model / "generation_config.json"),
            config=read_document(model / "config.json"),
            added_tokens=read_document(directory / "added_tokens.json"),
            chat_templates=read_chat_templates(directory, tokenizer_config.get("chat_template")),
        )

    def added(self) -> Iterator[dict[str, Any]]:
        """The tokens that these files add, in the shape of tokenizer.json's `added_tokens`."""
        decoder = self.tokenizer_config.get("added_tokens_decoder") or {}
        texts = set()
        for number, token in decoder.items():
            texts.add(token["content"])
            yield {**PLAIN, **token, "id": int(number)}
        for text, number in self.added_tokens.items():
            if text not in texts:
                yield {**PLAIN, "content": text, "id": int(number), "special": True}


PLAIN = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}


def special_tokens(
    files: CompanionFiles, pieces: Sequence[str], begins_with: str | None, *, adds_bos: bool
) -> SpecialTokens:
    """The roles among `pieces` (indexed by id).

    `begins_with` is the token that the post-processor puts first, `adds_bos` the habit of the
    kind of tokenizer; `add_bos_token` in tokenizer_config.json overrides both.
    Raises TokenizerError for a role held by a token that the vocabulary does not have.
    """
    ids = {piece: number for number, piece in enumerate(pieces) if piece}
    roles = {role: _role(files, role, ids) for role in ("bos", "eos", "pad", "unk")}
    explicit = files.tokenizer_config.get("add_bos_token")
    add_bos = bool(explicit) if explicit is not None else begins_with is not None or adds_bos
    add_eos = bool(files.tokenizer_config.get("add_eos_token"))
    bos = roles["bos"]
    if add_bos and bos is None and begins_with is not None:
        bos = ids.get(begins_with)
    for adds, role, number in ((add_bos, "bos", bos), (add_eos, "eos", roles["eos"])):
        if adds and number is None:
            raise TokenizerError(
                f"tokenizer_config.json asks to add the {role} token, but no file names one; set "
                f"{role}_token, or set add_{role}_token to false"
            )
    ends = set(_ends(files, roles["eos"], ids))
    missing = sorted(end for end in ends if not (0 <= end < len(pieces) and pieces[end]))
    if missing:
        raise TokenizerError(
            f"config.json or generation_config.json ends a text at {_listed(missing)}, but the "
            f"tokenizer has no such token (ids 0 to {len(pieces) - 1}); correct eos_token_id"
        )
    return SpecialTokens(
        bos=bos,
        eos=roles["eos"],
        pad=roles["pad"],
        unk=roles["unk"],
        ends=tuple(sorted(ends)),
        add_bos=add_bos,
        add_eos=add_eos,
        named=tuple(_named(files)),
        chat_templates=files.chat_templates,
    )


def _named(files: CompanionFiles) -> Iterator[tuple[str, str]]:
    for role in ROLES:
        for document in (files.tokenizer_config, files.special_tokens_map):
            text = _text(document.get(f"{role}_token"))
            if text is not None:
                yield f"{role}_token", text
                break


def _text(token: object) -> str | None:
    """A token's text; files have it alone, or in an object with flags."""
    text = token.get("content") if isinstance(token, Mapping) else token
    return text if isinstance(text, str) else None


def _role(files: CompanionFiles, role: str, ids: Mapping[str, int]) -> int | None:
    for name, document in (
        ("tokenizer_config.json", files.tokenizer_config),
        ("special_tokens_map.json", files.special_tokens_map),
    ):
        text = _text(document.get(f"{role}_token"))
        if text is None:
            continue
        if text not in ids and role == "unk":
            return None  # Phi-4 names U+FFFD, which byte-level text can never need
        if text not in ids:
            raise TokenizerError(
                f"{name} names {shown(text)} as {role}_token, but the tokenizer has no such token; "
                "the files belong to different models, download them again"
            )
        return ids[text]
    held = set(ids.values())
    for document in (files.generation_config, files.config):
        numbers = [number for number in _numbers(document, role) if number >= 0]
        known = [number for number in numbers if number in held]
        if known:
            return known[0]
    return None


def _numbers(document: Document, role: str) -> list[int]:
    """The ids in `<role>_token_id`: none, one, or a list."""
    value = document.get(f"{role}_token_id")
    values = value if isinstance(value, list) else [value]
    return [number for number in values if number is not None]


def _ends(files: CompanionFiles, eos: int | None, ids: Mapping[str, int]) -> Iterator[int]:
    yield from _numbers(files.config, "eos")
    yield from _numbers(files.generation_config, "eos")
    if eos is not None:
        yield eos
    texts = [text for _, text in files.chat_templates]
    for token in END_OF_TURN:
        if token in ids and any(token in text for text in texts):
            yield ids[token]


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))
