"""The plan of a GGUF file: every tensor's type, bytes and reason."""

from phiquant.errors import ConfigError
from phiquant.phi.architecture import Architecture
from phiquant.phi.network.parts import Role, Weight
from phiquant.phi.survey import Survey
from phiquant.planning.plan import Plan, PlanRow
from phiquant.quantization.grid import stored_bytes
from phiquant.targets.form import check_context
from phiquant.targets.gguf.form import GgufForm
from phiquant.targets.gguf.grids import GRIDS
from phiquant.targets.gguf.mixtures import MIXTURES, Choice, Mixture, TensorPlace, choose
from phiquant.targets.gguf.tensors import LONG_FACTORS, SHORT_FACTORS, tensor_name


def plan(architecture: Architecture, survey: Survey, form: GgufForm) -> Plan:
    """Every tensor of the file, in network order, LongRoPE's factors first.

    Raises ConfigError for dimensions that llama.cpp's `phi3` cannot hold, RequestError for a
    context that the model does not reach.
    """
    check_context(form.context, architecture.max_positions)
    _check(architecture)
    rows = _factor_rows(architecture)
    rows += [
        _row(weight, architecture, survey, MIXTURES[form.type]) for weight in architecture.weights()
    ]
    return Plan("gguf", form.type, tuple(rows), _notes(architecture))


def _check(architecture: Architecture) -> None:
    attention = architecture.heads * architecture.head_size
    if attention != architecture.hidden_size:
        raise ConfigError(
            f"llama.cpp's phi3 needs heads × head size to equal the hidden size, but the model has "
            f"{architecture.heads} × {architecture.head_size} = {attention} and "
            f"{architecture.hidden_size}; choose another target for it"
        )


def _notes(architecture: Architecture) -> tuple[str, ...]:
    """What llama.cpp will do otherwise than the model as published."""
    window = architecture.sliding_window
    if window is None or window >= architecture.max_positions:
        return ()
    return (
        f"llama.cpp runs Phi-3 models without their sliding window: beyond {window} tokens, "
        "a token attends to all before it",
    )


def _factor_rows(architecture: Architecture) -> list[PlanRow]:
    if architecture.rope.long is None:
        return []
    shape = (architecture.rope.dimensions // 2,)
    reason = "LongRoPE's factors, computed from the configuration: F32, as llama.cpp reads them"
    return [
        PlanRow(None, name, None, None, shape, "F32", stored_bytes(GRIDS["F32"], shape), reason)
        for name in (LONG_FACTORS, SHORT_FACTORS)
    ]


def _row(weight: Weight, architecture: Architecture, survey: Survey, mixture: Mixture) -> PlanRow:
    choice = _within_range(_choice(weight, architecture, mixture), weight, survey)
    return PlanRow(
        source=weight.name,
        output=tensor_name(weight),
        role=weight.role,
        layer=weight.layer,
        shape=weight.shape,
        grid=choice.type,
        nbytes=stored_bytes(GRIDS[choice.type], weight.shape),
        reason=choice.reason,
    )


def _choice(weight: Weight, architecture: Architecture, mixture: Mixture) -> Choice:
    if weight.role.is_norm:
        return Choice("F32", "norm gains: always F32")
    place = TensorPlace(
        weight.role,
        weight.layer or 0,
        architecture.layers,
        architecture.heads // architecture.kv_heads,
    )
    tied = architecture.tied_head and weight.role is Role.EMBEDDING
    return choose(
        mixture,
        place,
        is_head=tied or weight.role is Role.HEAD,
        columns=weight.shape[-1],
    )


def _within_range(choice: Choice, weight: Weight, survey: Survey) -> Choice:
    """F32 in place of F16 where a value would become infinite."""
    if choice.type != "F16" or survey.fits_fp16(weight.name):
        return choice
    return Choice(
        "F32",
        f"largest magnitude {survey.largest[weight.name]:g} is beyond FP16's 65504: kept in F32",
    )
