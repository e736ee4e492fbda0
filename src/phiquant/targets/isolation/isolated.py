"""An artifact in its runtime in a process of its own: what it does there, it does to that alone.

Loading a file by another hand runs a great deal of native code over it. Here that happens in a
child (`serving.py`), which is shut in (`host.confinement`) and has limits (`limits.py`); this
process asks it through pipes, and reads no more than plain values (`frames.py`). If the child dies
or hangs, what it died of is an ArtifactError.

The child finds its target by name. So a target that is not one of the table's runs in this process.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import NoneType
from typing import Any, Protocol, Self, TypeVar

import numpy as np
import numpy.typing as npt

from phiquant import errors
from phiquant.errors import ArtifactError, InputError, PhiquantError, ResourceError
from phiquant.quantization.grid import Floats
from phiquant.targets.isolation.frames import Document
from phiquant.targets.isolation.limits import Limits
from phiquant.targets.isolation.runtime_process import GoneError, RuntimeProcess
from phiquant.targets.links import check_links, places_of
from phiquant.targets.table import is_listed
from phiquant.targets.target import Generation, Runner, Target

NO_MEMORY = re.compile(r"bad_?alloc|MemoryError|(cannot|failed to|unable to) allocate", re.I)
"""How native code and Python say that there was no more."""
WIDEST = 2
"""Times the model's vocabulary that a row of logits may be long."""
LONGEST = 1 << 20
"""Bytes of an answer without an array: a chat template, the words of an error."""
A_CHARACTER = 64
"""Bytes of an answer for each character of a text that is cut into tokens, and more than enough."""
A_TOKEN = 1000
"""Characters of text for each token of a generation, likewise."""

Kind = TypeVar("Kind")


class Launched(Protocol):
    """An artifact on its way into its runtime: there when it is entered, and gone after."""

    def __enter__(self) -> Runner: ...

    def __exit__(self, *ended: object) -> None: ...

    def close(self) -> None:
        """Give it up, entered or not."""


def launch(target: Target[Any], path: Path, limits: Callable[[], Limits]) -> Launched:
    """Get ready to run the artifact at `path` in a child with `limits`; a target that the table
    does not list runs it here, without any.
    """
    return IsolatedRunner(target, path, limits()) if is_listed(target) else _Here(target, path)


class _Here:
    """A runner in this process."""

    def __init__(self, target: Target[Any], path: Path) -> None:
        self._target, self._path = target, path
        self._stack = ExitStack()

    def __enter__(self) -> Runner:
        return self._stack.enter_context(self._target.runner(self._path))

    def __exit__(self, *ended: object) -> None:
        self.close()

    def close(self) -> None:
        self._stack.close()


class IsolatedRunner:
    """See `targets.target.Runner`. The child is started at once, the artifact loaded on entering.

    Raises what the target's own runner raises, and ArtifactError for a child that died or hung.
    """

    def __init__(self, target: Target[Any], path: Path, limits: Limits) -> None:
        """Start the child; it gets ready while this process goes on."""
        self._target, self._path, self._limits = target, path, limits
        self._loaded: Document = {}
        self._child = RuntimeProcess(
            {
                "target": target.name,
                "readable": [str(place) for place in places_of(path)],
                "memory": limits.memory,
                "processor_seconds": limits.processor_seconds,
            }
        )

    def __enter__(self) -> Self:
        try:
            check_links(self._path)
            place = str(self._path.absolute())
            self._loaded = self._ask("loaded the artifact", call="load", path=place)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *ended: object) -> None:
        self.close()

    def close(self) -> None:
        """End the child."""
        self._child.close()

    @property
    def runtime(self) -> str:
        """The runtime's name and version."""
        return _checked(self._loaded.get("runtime"), str)

    @property
    def slow(self) -> bool:
        """Whether full logits over a long text are impractical here."""
        return _checked(self._loaded.get("slow"), bool)

    @property
    def confined(self) -> tuple[str, ...]:
        """What the system keeps the child from; see `host.confinement`."""
        return tuple(_checked(self._loaded.get("confined"), list))

    @property
    def chat_template(self) -> str | None:
        """The chat template as the runtime finds it."""
        return _text(self._ask("looked for its chat template", call="chat_template"))

    def tokenize(self, text: str) -> list[int]:
        """The runtime's own tokens of `text`."""
        longest = LONGEST + A_CHARACTER * len(text)
        return _tokens(self._ask("cut text into tokens", longest, call="tokenize", text=text))

    def render(self, messages: Sequence[Mapping[str, str]]) -> str | None:
        """The prompt by the runtime's own template engine."""
        if self._target.render is not None:
            return self._target.render(self._path, messages)
        turns = [dict(message) for message in messages]
        return _text(self._ask("rendered a conversation", call="render", messages=turns))

    def logits(self, tokens: npt.NDArray[np.int32], last: int | None = None) -> Floats:
        """Logits (tokens, vocabulary) of one sequence."""
        rows, count = last or len(tokens), len(tokens)
        question = {"call": "logits", "tokens": np.asarray(tokens).tolist(), "last": last}
        shape = (rows, WIDEST * self._limits.vocabulary)
        doing = f"computed the logits of {count} tokens"
        array = self._answer(question, doing, LONGEST, count, shape)[1]
        if len(array) != rows:
            raise ArtifactError(f"{self._title} gives {len(array)} rows of logits, not {rows}")
        return array

    def generate(self, prompt: npt.NDArray[np.int32], limit: int) -> Generation:
        """Continue `prompt` greedily."""
        question = {"call": "generate", "prompt": np.asarray(prompt).tolist(), "limit": limit}
        made, _ = self._answer(question, "generated text", LONGEST, len(prompt) + limit)
        return Generation(
            tuple(_tokens(made)[:limit]),
            _checked(made.get("text"), str)[: A_TOKEN * limit],
            _checked(made.get("stopped"), bool),
            float(_checked(made.get("seconds"), float, int)),
        )

    def stops_at(self, token: int) -> bool:
        """Whether the runtime's own rule ends a generation at `token`."""
        asked = self._ask("was asked where it stops", call="stops_at", token=int(token))
        return _checked(asked.get("stops"), bool)

    @property
    def _title(self) -> str:
        return self._target.title

    def _ask(self, doing: str, longest: int = LONGEST, **question: Any) -> Document:  # noqa: ANN401
        return self._answer(question, doing, longest, 0)[0]

    def _answer(
        self,
        question: Document,
        doing: str,
        longest: int,
        tokens: int,
        shape: tuple[int, int] | None = None,
    ) -> tuple[Document, Floats]:
        """The child's answer, as long as `tokens` tokens may take; `doing` is for messages."""
        try:
            answer, array = self._child.ask(question, self._limits.seconds(tokens), longest, shape)
        except GoneError as gone:
            if NO_MEMORY.search(gone.last_word):
                raise self._short_of_memory(doing) from None
            raise ArtifactError(f"{self._title} ended while it {doing}: {gone}") from None
        if "error" in answer:
            raise self._error(answer, doing)
        return answer, array

    def _error(self, answer: Document, doing: str) -> PhiquantError:
        """The error that the child met."""
        kind, message = str(answer["error"]), str(answer.get("message"))
        known = getattr(errors, kind, None)
        if isinstance(known, type) and issubclass(known, PhiquantError):
            if issubclass(known, InputError):  # it is handed nothing but the artifact
                return ArtifactError(message)
            error: PhiquantError = known.__new__(known, message)
            return error
        if NO_MEMORY.search(message):
            return self._short_of_memory(doing)
        return ArtifactError(f"{self._title} fails where it {doing}: {message}")

    def _short_of_memory(self, doing: str) -> PhiquantError:
        amount = f"{self._limits.memory / 1e9:.1f} GB"
        if self._limits.scarce:
            return ResourceError(
                f"{self._title} needs more than the {amount} of memory that there are here for it "
                f"while it {doing}; close other programs"
            )
        return ArtifactError(
            f"{self._title} wants more than {amount} of memory while it {doing}, which no artifact "
            "of this model needs"
        )


def _checked(value: object, *kinds: type[Kind]) -> Kind:
    """The value, which must be of one of `kinds`: it comes from the child."""
    if type(value) not in kinds:
        raise ArtifactError(f"the runtime's process answers {value!r:.60}, which makes no sense")
    return value  # type: ignore[return-value]


def _text(answer: Document) -> str | None:
    return _checked(answer.get("text"), str, NoneType)


def _tokens(answer: Document) -> list[int]:
    return [_checked(token, int) for token in _checked(answer.get("tokens"), list)]
