"""Whatever a model's shape: the plan's bytes are written, and `inspect` reads the plan back."""

import tempfile
from collections import Counter
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from test_exact_sizes import STORED

from command_line import tiny_model
from phiquant.evaluation.inspection import inspect
from phiquant.job.making import quantize
from phiquant.job.prospect import plan
from phiquant.planning.precision import PRECISIONS
from phiquant.recipe import Recipe
from phiquant.targets.table import targets


@st.composite
def shapes(draw):
    """What llama.cpp, MLX and the others can run: heads of an even size, rows of whole blocks."""
    head = draw(st.sampled_from([16, 32, 64]))
    kv_heads = draw(st.integers(1, 3))
    heads = kv_heads * draw(st.integers(1, 2)) * (32 // min(head, 32))
    return {
        "hidden_size": heads * head,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "intermediate_size": 32 * draw(st.integers(1, 9)),
        "num_hidden_layers": draw(st.integers(1, 3)),
        "vocab_size": draw(st.integers(512, 700)),
        "tie_word_embeddings": draw(st.booleans()),
        "dtype": draw(st.sampled_from(["BF16", "F16", "F32"])),
    }


def counted(rows):
    """What is stored of the network's weights, however many times; names without their suffix, and
    a group that is a whole row by its other name.
    """
    return Counter(
        (name.removesuffix(".weight"), shape, kind.replace(f" g{shape[-1]}", " channel"), nbytes)
        for name, shape, kind, nbytes in rows
    )


@settings(max_examples=8)
@given(shape=shapes(), precision=st.sampled_from(list(PRECISIONS)))
def test_plan_disk_and_inspection_agree(shape, precision):
    with tempfile.TemporaryDirectory() as place:
        model = tiny_model(Path(place) / "model", **shape)
        recipes = [Recipe(target.name, precision) for target in targets()]
        before = plan(model, recipes).plans
        made = quantize(model, recipes, Path(place) / "out")
        assert tuple(one.plan for one in made) == before
        for one in made:
            assert STORED[one.plan.target](one.path) == one.plan.nbytes
            inspection = inspect(one.path)
            planned = [row for row in one.plan.rows if row.source is not None]
            assert counted((row.output, row.shape, row.grid, row.nbytes) for row in planned) == (
                counted(
                    (each.name, each.shape, each.type, each.nbytes) for each in inspection.entries
                )
            )
