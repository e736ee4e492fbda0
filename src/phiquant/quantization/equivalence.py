"""Re-parametrisations that leave a Phi network's function unchanged.

A channel between two linear maps may be scaled by any factor if the next map divides it out:

    RMSNorm gain   g_j · s_j    against the columns of the linear after it   W_ij / s_j
    value rows     V_i · t_i    against the output projection's columns      O_ji / t_i
    up rows        U_i · u_i    against the down projection's columns        D_ji / u_i

(the up half enters SwiGLU linearly; with grouped heads a value row serves every query head of
its group). RMSNorm without gains also commutes with a rotation of the residual stream. All are
exact in real arithmetic; float32 leaves rounding errors only.

Sources: SmoothQuant, https://arxiv.org/abs/2211.10438, eq. 3; QuaRot,
https://arxiv.org/abs/2404.00456, section 3. Weights are dictionaries of float32 arrays by
checkpoint name and are changed in place: these are for models that fit in memory.
"""

import numpy as np

from phiquant.phi.architecture import Architecture, Role
from phiquant.quantization.grid import Floats

Weights = dict[str, Floats]


def rescale_channels(
    weights: Weights, architecture: Architecture, random: np.random.Generator, sigma: float
) -> None:
    """Scale every channel that may be scaled by a random factor of its own, exp(N(0, sigma²))."""

    def factors(count: int) -> Floats:
        return random.lognormal(0.0, sigma, count).astype(np.float32)

    hidden = architecture.hidden_size
    for names in _layers(architecture):
        for norm, linear in (
            (Role.ATTENTION_NORM, Role.QKV),
            (Role.FFN_NORM, Role.GATE_UP),
        ):
            scale = factors(hidden)
            weights[names[norm]] *= scale
            weights[names[linear]] /= scale
        _scale_values(
            weights, names, architecture, factors(architecture.kv_heads * architecture.head_size)
        )
        _scale_up(weights, names, factors(architecture.intermediate_size))
    if not architecture.tied_head:
        scale = factors(hidden)
        weights["model.norm.weight"] *= scale
        weights["lm_head.weight"] /= scale


def _scale_values(
    weights: Weights, names: dict[Role, str], architecture: Architecture, scale: Floats
) -> None:
    groups, size = architecture.kv_heads, architecture.head_size
    weights[names[Role.QKV]][-groups * size :] *= scale[:, None]
    per_query_head = np.repeat(
        scale.reshape(groups, size), architecture.heads // groups, axis=0
    ).reshape(-1)
    weights[names[Role.ATTENTION_OUTPUT]] /= per_query_head


def _scale_up(weights: Weights, names: dict[Role, str], scale: Floats) -> None:
    weights[names[Role.GATE_UP]][scale.size :] *= scale[:, None]
    weights[names[Role.DOWN]] /= scale


def fold_norms(weights: Weights, architecture: Architecture) -> None:
    """Move every RMSNorm gain into the columns of the linear after it; the gains become one.

    The final norm folds into the head, which must therefore be untied.
    """
    if architecture.tied_head:
        raise ValueError("the final norm can fold only into a head of its own")
    pairs = [
        (names[norm], names[linear])
        for names in _layers(architecture)
        for norm, linear in (
            (Role.ATTENTION_NORM, Role.QKV),
            (Role.FFN_NORM, Role.GATE_UP),
        )
    ]
    pairs.append(("model.norm.weight", "lm_head.weight"))
    for norm, linear in pairs:
        weights[linear] *= weights[norm]
        weights[norm] = np.ones_like(weights[norm])


def rotate_residual(
    weights: Weights, architecture: Architecture, random: np.random.Generator
) -> None:
    """Rotate the residual stream by a random orthogonal matrix; every norm gain must be one."""
    hidden = architecture.hidden_size
    rotation, triangle = np.linalg.qr(random.normal(size=(hidden, hidden)))
    rotation = rotation * np.sign(np.diag(triangle))  # uniform over the orthogonal group
    for weight in architecture.weights():
        values = weights[weight.name]
        if weight.role.is_norm:
            if not np.all(values == 1):
                raise ValueError(f"fold {weight.name} before rotating")
        elif weight.role in (Role.ATTENTION_OUTPUT, Role.DOWN):  # writes to the stream
            weights[weight.name] = (rotation.T @ values).astype(np.float32)
        else:  # reads from the stream, or is the embedding, which starts it
            weights[weight.name] = (values @ rotation).astype(np.float32)


def _layers(architecture: Architecture) -> list[dict[Role, str]]:
    layers: list[dict[Role, str]] = [{} for _ in range(architecture.layers)]
    for weight in architecture.weights():
        if weight.layer is not None:
            layers[weight.layer][weight.role] = weight.name
    return layers
