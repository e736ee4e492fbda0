"""The chat templates of a checkpoint: which of its files transformers takes them from.

    chat_template.jinja               the template in use, called "default" here
    additional_chat_templates/*.jinja others, called as their files are
    tokenizer_config.json             `chat_template`: a text, a list of {"name", "template"}, or an
                                      object of texts by name

Where there is a file with a template, tokenizer_config.json's are not looked at.
Source: `_from_pretrained` in transformers' tokenization_utils_base.py (5.23). Templates are text:
nothing here runs them.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from phiquant.errors import TokenizerError
from phiquant.host import foreign
from phiquant.host.shown import shown
from phiquant.phi.tokenizer.template_white_space import plain_line_ends

DEFAULT = "default"
FILE = "chat_template.jinja"
FURTHER_FILES = "additional_chat_templates"

Templates = tuple[tuple[str, str], ...]

MOST = 64
"""Templates of one model."""
ROLES = ("system", "user", "assistant")
PUT_TOGETHER = re.compile(r"""<\|\s*(?:['"]|\{\{)""")
"""A role's token in the making: `'<|' + message['role'] + '|>'`, `<|{{ message.role }}|>`."""


def read_chat_templates(directory: Path, stored: object) -> Templates:
    """Name and text of every template, the one in use ("default") first, with plain line ends.

    `stored` is `chat_template` in tokenizer_config.json. Raises TokenizerError for templates that
    are no text.
    """
    named = dict(_files(directory)) or dict(_stored(stored))
    if len(named) > MOST:
        raise TokenizerError(f"expected at most {MOST} chat templates, found {len(named)}")
    longest, most = max(map(len, named.values()), default=0), foreign.TEMPLATE.most
    if most is not None and longest > most:
        raise TokenizerError(
            f"expected chat templates of at most {most:,} characters, found one of {longest:,}"
        )
    texts = {name: plain_line_ends(text) for name, text in named.items()}
    return tuple(sorted(texts.items(), key=lambda item: (item[0] != DEFAULT, item[0])))


def written_tokens(template: str, tokens: Iterable[str]) -> frozenset[str]:
    """Those of `tokens` that `template` writes, as far as its text tells: what it spells out, and
    the tokens of roles where it puts them together.
    """
    roles = {f"<|{role}|>" for role in ROLES} if PUT_TOGETHER.search(template) else set()
    return frozenset(token for token in tokens if token in template or token in roles)


def _files(directory: Path) -> Iterator[tuple[str, str]]:
    if foreign.present(directory / FILE):
        yield DEFAULT, foreign.read_text(directory / FILE, foreign.TEMPLATE, directory)
    further = sorted((directory / FURTHER_FILES).glob("*.jinja"))
    for path in further[: MOST + 1]:
        yield path.stem, foreign.read_text(path, foreign.TEMPLATE, directory)


def _stored(stored: object) -> Iterator[tuple[str, str]]:
    if stored is None:
        return
    if isinstance(stored, str):
        yield DEFAULT, stored
        return
    for name, text in _entries(stored):
        if not isinstance(name, str) or not isinstance(text, str):
            raise _refusal(
                f"an entry whose name is {shown(name)} and whose template is {shown(text)}"
            )
        yield name, text


def _entries(stored: object) -> Iterator[tuple[object, object]]:
    if isinstance(stored, Mapping):
        yield from stored.items()
    elif isinstance(stored, list):
        for entry in stored:
            if not isinstance(entry, Mapping):
                raise _refusal(f"the entry {shown(entry)}")
            yield entry.get("name"), entry.get("template")
    else:
        raise _refusal(f"{shown(stored)}")


def _refusal(finding: str) -> TokenizerError:
    return TokenizerError(
        "chat_template in tokenizer_config.json should be a text, or a list of objects with a "
        f'"name" and a "template"; found {finding}. Download the file again, or put the template '
        f"into {FILE}"
    )
