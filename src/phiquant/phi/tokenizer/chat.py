"""Conversations as the model was trained on them, from the special tokens that its vocabulary has.

Chat templates are programs that come with a model, and those are never run here. For turns of
text the published formats come to a few strings, told apart by their special tokens. White space
between the parts is left out: Phi-3's own tokens swallow it, Phi-4 has none.

Tools are offered in the system's turn and called in the assistant's, as JSON, between the tokens
for that where the vocabulary has them (Phi-4-mini) and as plain text where it does not.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Message = Mapping[str, Any]
"""`role` and `content`; `tools` in a system's turn, `tool_calls` in an assistant's."""


@dataclass(frozen=True, slots=True)
class ChatFormat:
    """How turns are written."""

    tokens: tuple[str, ...]
    """The special tokens that tell this format."""
    turn: str
    """A turn, from `role` and `text`."""
    answer: str
    """What the assistant's turn begins with."""
    role: str | None = None
    """The special token that a role needs; one without it speaks as the user."""


FORMATS = (
    # Phi-4
    ChatFormat(
        ("<|im_start|>", "<|im_sep|>", "<|im_end|>"),
        "<|im_start|>{role}<|im_sep|>{text}<|im_end|>",
        "<|im_start|>assistant<|im_sep|>",
    ),
    # ChatML (SmolLM2)
    ChatFormat(
        ("<|im_start|>", "<|im_end|>"),
        "<|im_start|>{role}\n{text}<|im_end|>\n",
        "<|im_start|>assistant\n",
    ),
    # Phi-3, Phi-3.5, Phi-4-mini
    ChatFormat(
        ("<|user|>", "<|end|>", "<|assistant|>"),
        "<|{role}|>{text}<|end|>",
        "<|assistant|>",
        "<|{}|>",
    ),
)

PLAIN = ChatFormat((), "{role}: {text}\n\n", "assistant: ")
"""For a vocabulary of no known format."""


def chat_prompt(question: str, special: Collection[str]) -> str:
    """The prompt for `question`; the question itself where no known format fits."""
    form = _format(special)
    if form is PLAIN:
        return question
    return form.turn.format(role="user", text=question) + form.answer


def chat_text(messages: Sequence[Message], special: Collection[str]) -> str:
    """A whole conversation; special tokens within a message are left as they are."""
    form = _format(special)
    return "".join(
        form.turn.format(role=_role(message, form, special), text=_content(message, special))
        for message in messages
    )


def _format(special: Collection[str]) -> ChatFormat:
    for form in FORMATS:
        if all(token in special for token in form.tokens):
            return form
    return PLAIN


def _role(message: Message, form: ChatFormat, special: Collection[str]) -> str:
    """The role as the format spells it: a tool's answer has a token of its own in Phi-4-mini."""
    role = str(message["role"])
    if form.role is None:
        return role
    spelled = "tool_response" if role == "tool" else role
    return spelled if form.role.format(spelled) in special else "user"


def _content(message: Message, special: Collection[str]) -> str:
    text = message.get("content") or ""
    if message.get("tools"):
        text += _enclosed(message["tools"], "<|tool|>", "<|/tool|>", special)
    if message.get("tool_calls"):
        text += _enclosed(message["tool_calls"], "<|tool_call|>", "<|/tool_call|>", special)
    return str(text)


def _enclosed(value: object, begin: str, end: str, special: Collection[str]) -> str:
    written = json.dumps(value, ensure_ascii=False)
    return f"{begin}{written}{end}" if begin in special else written
