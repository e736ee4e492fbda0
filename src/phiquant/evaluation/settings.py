"""What a verification measures, and when it fails."""

from dataclasses import dataclass

from phiquant.errors import RequestError
from phiquant.evaluation.text import EvaluationText
from phiquant.host.kinds import FLAG, NUMBER, WHOLE, instance, optional

TEXT = instance(EvaluationText, "an EvaluationText", "give EvaluationText(name, content)")


@dataclass(frozen=True, slots=True)
class Settings:
    """The defaults take a minute or two for a model of 0.1 billion parameters on two cores.

    Raises RequestError for sizes and limits that mean nothing.
    """

    text: EvaluationText | None = None
    """None is the text that the package ships."""
    window: int = 256
    """Tokens in a window."""
    windows: int | None = 16
    """How many windows of the text are measured; None for all."""
    max_kl: float | None = None
    """The greatest mean KL divergence that passes, in nats a token; None goes by precision."""
    boundary: bool = True
    """Whether prompts cross LongRoPE's boundary: four more passes over that many tokens."""
    answer: int = 32
    """Tokens that the answer to a chat prompt may take; a quarter of them in a slow runtime."""

    def __post_init__(self) -> None:
        optional(TEXT).check(text=self.text)
        WHOLE.check(window=self.window, answer=self.answer)
        optional(WHOLE).check(windows=self.windows)
        optional(NUMBER).check(max_kl=self.max_kl)
        FLAG.check(boundary=self.boundary)
        counts = (
            ("window", self.window, 2),
            ("windows", self.windows, 1),
            ("answer", self.answer, 1),
        )
        for name, value, least in counts:
            if value is not None and value < least:
                raise RequestError(f"expected `{name}` to be {least} or more, found {value}")
        if self.max_kl is not None and not self.max_kl >= 0:
            raise RequestError(
                f"expected a number of nats, at least 0, for `max_kl`, found {self.max_kl}"
            )
