"""Tiny checkpoints with a tokenizer, and artifacts of them written band by band."""

import numpy as np

from phiquant.phi.checkpoint import Checkpoint
from phiquant.phi.survey import survey
from tiny_models import write_tiny_checkpoint
from tiny_tokenizer import write_tiny_tokenizer

SHAPE = {"hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 4}
"""Rows of 128 and 256 weights: every group divides them."""


def tiny_source(directory, tokenizer="bpe", **features):
    """An opened checkpoint with a tokenizer of the kind `tokenizer`."""
    tokens = write_tiny_tokenizer(directory, 512, tokenizer)
    ends = {"eos_token_id": tokens.eos, "bos_token_id": tokens.bos, "pad_token_id": tokens.eos}
    write_tiny_checkpoint(directory, **(SHAPE | ends | features))
    return Checkpoint.open(directory)


def write_bands(target, recipe, checkpoint, directory, band):
    """Plan, encode and write `band` rows at a time, the last band first; returns the plan."""
    plan = target.plan(checkpoint.architecture, survey(checkpoint), recipe.form)
    directory.mkdir()
    with target.writer(plan, checkpoint, recipe.form, directory) as writer:
        for row in plan.rows:
            if row.source is None:
                continue
            grid = target.grids[row.grid]
            rows = row.shape[0] if len(row.shape) == 2 else 1
            for first in reversed(range(0, rows, band)):
                if len(row.shape) == 2:
                    weights = checkpoint.weight(row.source, first, first + band)
                else:
                    weights = checkpoint.weight(row.source)[None]
                writer.write(row, first, grid.encode(weights))
    return plan


def some_tokens(count, vocabulary=500, seed=3):
    return np.random.default_rng(seed).integers(0, vocabulary, count).astype(np.int32)
