"""A model's chat template, rendered the way transformers renders it: what runtimes must agree with.

Templates are programs that come with a model. They run in jinja2's sandbox, in a process of its
own, for a limited time, with limited memory, and up to a limited length of text.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from phiquant.host.child import ask

PROGRAM = Path(__file__).with_name("template_program.py")
SECONDS, COMPUTING = 30.0, 3
"""Seconds of waiting, and those for which the program may compute, where the system limits it."""
CHARACTERS = 1 << 20

Messages = Sequence[Mapping[str, str]]
"""Turns, each with a `role` and a `content`."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """The text of a prompt, or why it could not be made."""

    text: str | None
    obstacle: str = ""
    refused: bool = False
    """Whether the template itself raised an error: it may take another conversation."""


def render(template: str, messages: Messages, tokens: Mapping[str, str]) -> Rendered:
    """The prompt for `messages`, up to where the assistant's next turn begins.

    `tokens` are the special tokens that a template may write: "bos_token" → text.
    """
    request = {
        "template": template,
        "messages": [dict(message) for message in messages],
        "tokens": dict(tokens),
        "most": CHARACTERS,
        "seconds": COMPUTING,
    }
    answer = ask(PROGRAM, request, SECONDS)
    if answer.document is None:
        return Rendered(None, answer.messages[-300:])
    text = answer.document.get("text")
    return Rendered(text, str(answer.document.get("obstacle", "")), refused=text is None)
