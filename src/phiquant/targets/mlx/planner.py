"""The plan of an MLX artifact: which grid every tensor gets, and why.

The choice is that of mlx_lm.convert: the embedding, all linear layers and an untied head are
quantized, RMSNorm gains keep the parameter dtype, which is the checkpoint's own. It differs where
a row length is no multiple of the group: mlx_lm leaves such a layer unquantized, here it gets the
largest group that fits, and stays unquantized only if not even 32 does.
"""

from phiquant.errors import RequestError
from phiquant.phi.architecture import Architecture
from phiquant.phi.network.parts import Weight
from phiquant.phi.survey import Survey
from phiquant.planning.plan import Plan, PlanRow
from phiquant.quantization.grid import fitting_group, stored_bytes
from phiquant.targets.mlx.formats import (
    AFFINE_GRIDS,
    FLOATS,
    GRIDS,
    Affine,
    MlxForm,
    affine_type,
)
from phiquant.targets.mlx.grids import GROUPS
from phiquant.targets.mlx.longrope import rope_fields, served_lengths
from phiquant.targets.mlx.model_config import check_supported


def plan(architecture: Architecture, survey: Survey, form: MlxForm) -> Plan:
    """Every tensor of the artifact, in network order.

    Raises RequestError for a context beyond the model's, and for FP16 where
    a weight does not fit it; ConfigError for a model that mlx_lm would run wrongly.
    """
    check_supported(architecture)
    name = form.type
    served = served_lengths(architecture, form.context)
    rope_fields(architecture, served)  # refuses what config.json could not express
    if FLOATS.get(name, survey.dtype) == "F16":
        _require_fp16_range(architecture, survey)
    rows = tuple(_row(weight, name, survey.dtype) for weight in architecture.weights())
    notes = [served.sentence] if served.side else []
    window = architecture.sliding_window
    if window is not None and window < served.last:
        notes.append(
            f"mlx_lm's phi3 attends to all earlier tokens; the model's sliding window of {window} "
            f"tokens is not applied, so sequences of more than {window} tokens differ"
        )
    return Plan("mlx", name, rows, tuple(notes))


def _row(weight: Weight, name: str, own_dtype: str) -> PlanRow:
    grid, reason = _choose(weight, name, own_dtype)
    nbytes = stored_bytes(GRIDS[grid], weight.shape)
    output = weight.name.removesuffix(".weight")
    return PlanRow(
        weight.name, output, weight.role, weight.layer, weight.shape, grid, nbytes, reason
    )


def _choose(weight: Weight, name: str, own_dtype: str) -> tuple[str, str]:
    """The grid and the reason for it."""
    kind = affine_type(name)
    if kind is None:
        return FLOATS[name], f"{name}: every tensor is stored as {FLOATS[name]}"
    if weight.role.is_norm:
        return own_dtype, f"norm gains are not quantized; {own_dtype} as in the checkpoint"
    columns = weight.shape[-1]
    group = fitting_group(columns, kind.group, GROUPS)
    if group is None:
        return own_dtype, (
            f"rows of {columns} weights divide into groups of neither 32, 64 nor 128; "
            f"{own_dtype} as in the checkpoint"
        )
    grid = Affine(kind.bits, group).grid_name(own_dtype)
    if group != kind.group:
        return grid, (
            f"rows of {columns} weights do not divide into groups of {kind.group}; "
            f"groups of {group}"
        )
    return grid, f"{name}: embedding, linear layers and head are quantized"


def stored_as(row: PlanRow) -> Affine | None:
    """The bits and group of a planned row, None if it is not quantized."""
    return AFFINE_GRIDS.get(row.grid)


def _require_fp16_range(architecture: Architecture, survey: Survey) -> None:
    beyond = [weight.name for weight in architecture.weights() if not survey.fits_fp16(weight.name)]
    if beyond:
        raise RequestError(
            f"FP16 ends at 65504, and {beyond[0]} reaches {survey.largest[beyond[0]]:g}"
            f"{f' ({len(beyond) - 1} more tensors do not fit either)' if beyond[1:] else ''}; "
            "choose `type=bf16` (the same size) or `type=fp32`"
        )
