"""Does a conversation reach the model as its own chat template writes it?

A short conversation is rendered by the model's template the way transformers does it, and by the
artifact's template in the runtime's own engine. Engines understand different parts of Jinja; where
the artifact's template is right and the engine is not up to it, that is the runtime's limitation.
The tokens of the right prompt are compared as well: it is the text that matters most.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from phiquant.errors import ArtifactError
from phiquant.evaluation.check import Check, Outcome, failed, passed
from phiquant.evaluation.parity import first_difference
from phiquant.evaluation.rendering import Messages, Rendered, render
from phiquant.phi.tokenizer.chat import chat_text
from phiquant.phi.tokenizer.tokenizer import Tokenizer
from phiquant.targets.target import Runner

CONVERSATION: Sequence[Mapping[str, str]] = (
    {"role": "system", "content": "You are a helpful assistant."},
    {"role": "user", "content": "What is 2 + 2?\nAnd 3 + 3?"},
    {"role": "assistant", "content": "They are 4 and 6."},
    {"role": "user", "content": "Why is the sky blue?"},
)
TEMPLATE, PROMPT = "chat template", "chat prompt"

SHOWN = 40
"""Characters that are shown of a disagreement."""
SHOWN_TOKENS = 12


@dataclass(frozen=True, slots=True)
class _Expected:
    """The model's own prompt for the conversation, as far as its template takes it."""

    messages: Messages
    rendered: Rendered


def check_chat(runner: Runner, tokenizer: Tokenizer) -> Iterator[Check]:
    """Compare template and tokens; no check for a model without a chat template."""
    template = tokenizer.special.chat_template
    if template is None:
        return
    expected = _expected(template, tokenizer)
    yield _check_template(runner, tokenizer, expected)
    special = [token.text for token in tokenizer.definition.added]
    prompt = expected.rendered.text or chat_text(CONVERSATION, special)
    yield _check_prompt(runner.tokenize(prompt), tokenizer.encode(prompt))


def _check_prompt(actual: list[int], expected: list[int]) -> Check:
    if actual == expected:
        return passed(PROMPT, f"the model's own prompt gives the same {len(expected)} tokens")
    at = first_difference(actual, expected)
    shown = slice(at, at + SHOWN_TOKENS)
    return failed(
        PROMPT,
        f"the model's own prompt is tokenized otherwise: from token {at} on {actual[shown]}, "
        f"expected {expected[shown]}",
    )


def _expected(template: str, tokenizer: Tokenizer) -> _Expected:
    """The whole conversation; without the system's turn where the template refuses that."""
    whole = _rendered(template, CONVERSATION, tokenizer)
    if whole.refused:
        rest = _rendered(template, CONVERSATION[1:], tokenizer)
        if rest.text is not None:
            return _Expected(CONVERSATION[1:], rest)
    return _Expected(CONVERSATION, whole)


def _rendered(template: str, messages: Messages, tokenizer: Tokenizer) -> Rendered:
    return render(template, messages, dict(tokenizer.special.named))


def _check_template(runner: Runner, tokenizer: Tokenizer, expected: _Expected) -> Check:
    text, held = expected.rendered.text, runner.chat_template
    if held is None:
        return failed(TEMPLATE, "the model has a chat template, and the artifact has none")
    if text is None:
        return Check(
            TEMPLATE,
            Outcome.UNOBSERVED,
            f"the model's own template could not be rendered: {expected.rendered.obstacle}",
        )
    if held != tokenizer.special.chat_template:
        own = _rendered(held, expected.messages, tokenizer)
        if own.text != text:
            fault = own.obstacle if own.text is None else _difference(own.text, text)
            return failed(TEMPLATE, f"the artifact's template is not the model's: {fault}")
    return _check_engine(runner, tokenizer, expected.messages, text)


def _check_engine(runner: Runner, tokenizer: Tokenizer, messages: Messages, text: str) -> Check:
    """What the runtime's engine makes of an artifact's template that is right."""
    right = "the artifact's template is the model's"
    try:
        rendered = runner.render(messages)
    except ArtifactError as error:
        return Check(
            TEMPLATE,
            Outcome.LIMITED,
            f"{right}, but {_sentence(error)}; applications have to make the prompt themselves",
        )
    if rendered is None:
        return Check(
            TEMPLATE,
            Outcome.UNOBSERVED,
            f"{right}; the runtime's template engine is not installed here",
        )
    rendered, text = (_without_begin(prompt, tokenizer) for prompt in (rendered, text))
    turns = f"the runtime renders {len(messages)} turns"
    if rendered == text:
        return passed(TEMPLATE, f"{turns} as the model's template does")
    differing = _difference(rendered, text)
    if runner.tokenize(rendered) == tokenizer.encode(text):
        return passed(
            TEMPLATE,
            f"{turns} to the same tokens as the model's template, in another text: {differing}",
        )
    what = "the conversation"
    if messages[0]["role"] == "system" and _agrees(runner, tokenizer, messages[1:]):
        what = "the system's turn, and only that,"
    return Check(
        TEMPLATE,
        Outcome.LIMITED,
        f"{right}, but the runtime's own engine renders {what} otherwise: {differing}",
    )


def _agrees(runner: Runner, tokenizer: Tokenizer, messages: Messages) -> bool:
    """Whether the runtime renders `messages` as the model's own template does."""
    expected = _rendered(tokenizer.special.chat_template or "", messages, tokenizer).text
    try:
        rendered = runner.render(messages)
    except ArtifactError:
        return False
    if rendered is None or expected is None:
        return False
    return _without_begin(rendered, tokenizer) == _without_begin(expected, tokenizer)


def _without_begin(prompt: str, tokenizer: Tokenizer) -> str:
    """A prompt without the token that the tokenizer would put in front of it once more."""
    special = tokenizer.special
    if not special.add_bos or special.bos is None:
        return prompt
    return prompt.removeprefix(tokenizer.definition.pieces[special.bos])


def _sentence(error: ArtifactError) -> str:
    """The first line of what an engine says; it may show the whole template."""
    return str(error).splitlines()[0].rstrip(":")[:200]


def _difference(actual: str, expected: str) -> str:
    at = first_difference(actual, expected)
    shown = slice(at, at + SHOWN)
    return f"from character {at} on {actual[shown]!r}, expected {expected[shown]!r}"
