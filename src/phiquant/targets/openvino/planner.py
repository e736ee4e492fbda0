"""The plan of an OpenVINO artifact: which grid every tensor gets, and why.

As optimum-cli does it: the matrices of the layers get the type's grid, embedding and head (one
constant where they are tied) the backup, 8 bits per channel; gains stay float. With a ratio
below 1, matrices go to the backup in the order of their measured sensitivity for each weight, or,
where none was measured, in that of `sensitivity`, until the share of weights that keeps 4 bits is
no more than form.
"""

from collections.abc import Collection
from math import prod

from phiquant.phi.architecture import Architecture
from phiquant.phi.network.parts import Role, Weight
from phiquant.phi.survey import Survey
from phiquant.planning.plan import Plan, PlanRow
from phiquant.quantization.grid import fitting_group
from phiquant.targets.form import check_context
from phiquant.targets.openvino.form import OpenVinoForm
from phiquant.targets.openvino.formats import FLOATS, Compressed
from phiquant.targets.openvino.grids import GROUPS
from phiquant.targets.openvino.parts import stored_constants
from phiquant.targets.openvino.running import SINGLE_PRECISION

TABLES = (Role.EMBEDDING, Role.HEAD)
ROLES = (Role.DOWN, Role.QKV, Role.ATTENTION_OUTPUT, Role.GATE_UP)
"""Matrices of a layer, the most sensitive first: what the mixtures of llama.cpp spend bits on."""


def plan(architecture: Architecture, survey: Survey, form: OpenVinoForm) -> Plan:
    """Every tensor of the artifact, in network order.

    Raises RequestError for a context beyond the model's.
    """
    check_context(form.context, architecture.max_positions)
    kept = _backed_up(architecture, form, survey)
    rows = tuple(_row(weight, form, survey, kept) for weight in architecture.weights())
    return Plan("openvino", form.type, rows, _notes(architecture, form))


def sensitivity(weight: Weight, layers: int) -> tuple[int, int, int]:
    """A key that sorts the matrices of all layers, the most sensitive first.

    Errors of the outer eighths of the layers cost most, then those of every third layer between,
    and within each of these, matrices by role.
    """
    assert weight.layer is not None
    eighth = max(1, layers // 8)
    outer = weight.layer < eighth or weight.layer >= layers - eighth
    third = (weight.layer - eighth) % 3 == 2
    return (0 if outer else 1 if third else 2, ROLES.index(weight.role), weight.layer)


def _backed_up(architecture: Architecture, form: OpenVinoForm, survey: Survey) -> Collection[str]:
    """The layers' matrices that a ratio below 1 gives the backup."""
    matrices = [weight for weight in architecture.weights() if weight.role in ROLES]
    allowed = form.ratio * sum(prod(weight.shape) for weight in matrices)
    measured = survey.sensitivities
    if measured:
        matrices.sort(key=lambda weight: -measured[weight.name] / prod(weight.shape))
    else:
        matrices.sort(key=lambda weight: sensitivity(weight, architecture.layers))
    remaining = sum(prod(weight.shape) for weight in matrices)
    backed_up = set()
    for weight in matrices:
        if remaining <= allowed:
            break
        backed_up.add(weight.name)
        remaining -= prod(weight.shape)
    return backed_up


def _row(weight: Weight, form: OpenVinoForm, survey: Survey, backed_up: Collection[str]) -> PlanRow:
    grid, reason = _choose(weight, form, survey, weight.name in backed_up)
    output = weight.name.removesuffix(".weight")
    row = PlanRow(weight.name, output, weight.role, weight.layer, weight.shape, grid, 0, reason)
    nbytes = sum(part.nbytes for part in stored_constants(row))
    return PlanRow(
        weight.name, output, weight.role, weight.layer, weight.shape, grid, nbytes, reason
    )


def _choose(weight: Weight, form: OpenVinoForm, survey: Survey, backed_up: bool) -> tuple[str, str]:
    """The grid and the reason for it."""
    if weight.role.is_norm:
        return "f32", "norm gains are not quantized"
    kind = form.kind
    if kind is None:
        grid = FLOATS[form.type]
        if grid == "f16" and not survey.fits_fp16(weight.name):
            largest = survey.largest[weight.name]
            return "f32", f"reaches {largest:g}, beyond FP16's 65504: kept in f32"
        return grid, f"{form.type}: every matrix is stored as {grid}"
    if kind.bits == 4 and weight.role in TABLES:
        return _fitted(weight, form.backup, "embedding and head get the backup, 8 bits a channel")
    if backed_up:
        ratio = f"{form.ratio:g}"
        return _fitted(weight, form.backup, f"among the most sensitive beyond the ratio {ratio}")
    return _fitted(weight, kind, f"{form.type}: matrices of the layers")


def _fitted(weight: Weight, kind: Compressed, reason: str) -> tuple[str, str]:
    """`kind`, or what rows of this length can be stored on."""
    columns = weight.shape[-1]
    if columns % 8:
        return "f16", f"rows of {columns} weights are no multiple of 8: not quantized"
    if not kind.group or columns % kind.group == 0:
        return kind.grid.name, reason
    for_npu = kind.group == 128 and kind.symmetric  # the only groups that an NPU takes
    group = None if for_npu else fitting_group(columns, kind.group, GROUPS)
    if group is None:
        eight = Compressed(8, kind.symmetric, 0)
        return eight.grid.name, (
            f"rows of {columns} weights do not divide into groups of {kind.group}; 8 bits a channel"
        )
    fitted = Compressed(kind.bits, kind.symmetric, group)
    return fitted.grid.name, (
        f"rows of {columns} weights do not divide into groups of {kind.group}; groups of {group}"
    )


def _notes(architecture: Architecture, form: OpenVinoForm) -> tuple[str, ...]:
    long = architecture.rope.long
    notes = []
    if form.type == "fp32" and form.device == "CPU":
        notes.append(
            "on a processor with bfloat16 arithmetic OpenVINO computes in that, unless the "
            "application passes the properties "
            f"{' and '.join(f'{name}={value!r}' for name, value in SINGLE_PRECISION.items())}"
        )
    if long is not None:
        notes.append(
            f"a generation that grows past {long.original_positions} tokens goes on with "
            "LongRoPE's long factors, but its cached keys stay turned by the short ones; a prompt "
            "that is longer from the start is exact"
        )
    window = architecture.sliding_window
    if window is not None and window < architecture.max_positions:
        notes.append(
            f"the sliding window of {window} tokens is in the graph's mask; openvino_genai's paged "
            "attention replaces that mask and attends to all earlier tokens"
        )
    return tuple(notes)
