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

from phiquant.phi.architecture import Architecture
from phiquant.phi.network.channels import to_columns
from phiquant.phi.network.parts import Feed
from phiquant.quantization.grid import Floats

Weights = dict[str, Floats]


def rescale_channels(
    weights: Weights, architecture: Architecture, random: np.random.Generator, sigma: float
) -> None:
    """Scale every channel that may be scaled by a random factor of its own, exp(N(0, sigma²))."""

    def factors(count: int) -> Floats:
        return random.lognormal(0.0, sigma, count).astype(np.float32)

    network = architecture.network
    for block in network.blocks:
        for feed in sorted(block.feeds, key=lambda feed: feed.norm is None):
            _scale(weights, feed, factors(feed.rows or feed.into.columns))
    if not network.is_tied:
        _scale(weights, Feed(network.head, network.norm), factors(network.head.columns))


def _scale(weights: Weights, feed: Feed, scale: Floats) -> None:
    if feed.norm is not None:
        weights[feed.norm.gains.name] *= scale
    else:
        weights[feed.feeder.name][-feed.rows :] *= scale[:, None]
    weights[feed.into.weight.name] /= to_columns(feed, scale)


def fold_norms(weights: Weights, architecture: Architecture) -> None:
    """Move every RMSNorm gain into the columns of the linear after it; the gains become one.

    The final norm folds into the head, which must therefore be untied.
    """
    if architecture.tied_head:
        raise ValueError("the final norm can fold only into a head of its own")
    for feed in architecture.network.feeds():
        if feed.norm is not None:
            gains = feed.norm.gains.name
            weights[feed.into.weight.name] *= weights[gains]
            weights[gains] = np.ones_like(weights[gains])


def rotate_residual(
    weights: Weights, architecture: Architecture, random: np.random.Generator
) -> None:
    """Rotate the residual stream by a random orthogonal matrix; every norm gain must be one."""
    hidden = architecture.hidden_size
    rotation, triangle = np.linalg.qr(random.normal(size=(hidden, hidden)))
    rotation = rotation * np.sign(np.diag(triangle))  # uniform over the orthogonal group
    steps = [step for block in architecture.network.blocks for step in block.steps]
    writing = {step.linear.weight.name for step in steps if step.then is None}
    for weight in architecture.weights():
        values = weights[weight.name]
        if weight.role.is_norm:
            if not np.all(values == 1):
                raise ValueError(f"fold {weight.name} before rotating")
        elif weight.name in writing:  # adds to the stream
            weights[weight.name] = (rotation.T @ values).astype(np.float32)
        else:  # reads from the stream, or is the embedding, which starts it
            weights[weight.name] = (values @ rotation).astype(np.float32)
