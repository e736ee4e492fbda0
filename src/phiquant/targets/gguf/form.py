"""What can be asked of a GGUF file: one of llama.cpp's mixtures of block formats."""

from collections.abc import Mapping
from dataclasses import dataclass

from phiquant.targets.form import Request
from phiquant.targets.gguf.mixtures import DEFAULTS, MIXTURES

TYPES: Mapping[str, str] = {name: mixture.sentence for name, mixture in MIXTURES.items()}


@dataclass(frozen=True, slots=True)
class GgufForm:
    """The mixture, and the tokens to serve, no more than the model is made for."""

    type: str
    context: int | None = None
    divides = False

    @property
    def given(self) -> Mapping[str, str]:
        """llama.cpp's files leave no choices."""
        return {}


def read_form(request: Request) -> GgufForm:
    """The mixture that is asked for, by type or by precision; RequestError for an unknown one."""
    choose = f"among {', '.join(MIXTURES)}"
    return GgufForm(request.type_among(TYPES, DEFAULTS, "llama.cpp", choose), request.context)
