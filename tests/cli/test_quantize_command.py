"""`phiquant quantize`: what it leaves where, and that the same request gives the same bytes."""

import json

import pytest

from command_line import assert_refused, call, files_in, run

RECORDS = ("phiquant.json", "README.md")


def contents(directory):
    """File name → bytes; of the record, all but the time at which it was made."""
    hashes = {
        path.name: path.read_bytes() for path in directory.iterdir() if path.name not in RECORDS
    }
    record = json.loads((directory / "phiquant.json").read_text(encoding="utf-8"))
    assert record["made"].pop("at")
    return hashes | {"phiquant.json": record}


def test_a_single_target_is_the_output_itself(model, tmp_path):
    ended = run("quantize", model, "-o", tmp_path / "out")
    assert ended.code == 0, ended.err
    assert files_in(tmp_path) == [
        "out",
        "out/README.md",
        "out/phiquant.json",
        "out/tiny-phi-Q4_K_M.gguf",
    ]
    assert "Q4_K_M" in ended.out
    assert "bits per weight" in ended.out
    assert str(tmp_path) in ended.out.replace("\n", "")


def test_several_targets_lie_below_the_output(made):
    output, document = made
    assert sorted(path.name for path in output.iterdir()) == ["gguf", "mlx"]
    assert [one["path"] for one in document["artifacts"]] == [
        str(output / "gguf"),
        str(output / "mlx"),
    ]
    for one in document["artifacts"]:
        rows = one["plan"]["rows"]
        assert one["plan"]["nbytes"] == sum(row["nbytes"] for row in rows) > 0
    assert (output / "mlx" / "model.safetensors").stat().st_size > 100_000


@pytest.mark.parametrize("target", ["gguf", "mlx"])
def test_apart_or_together_the_bytes_are_the_same(model, made, tmp_path, target):
    output, _ = made
    ended = call("quantize", model, "--to", target, "-o", tmp_path / "alone", "-q")
    assert ended.code == 0, ended.err
    assert contents(tmp_path / "alone") == contents(output / target)


def test_the_number_of_threads_does_not_change_a_byte(model, made, tmp_path):
    output, _ = made
    command = ("quantize", model, "--to", "gguf,mlx", "-o", tmp_path / "out", "-q")
    ended = run(*command, environ={"NUMBA_NUM_THREADS": "1"})
    assert ended.code == 0, ended.err
    for target in ("gguf", "mlx"):
        assert contents(tmp_path / "out" / target) == contents(output / target)


def test_shards_and_element_types_that_hold_the_same_values_give_the_same_tensors(tmp_path):
    from command_line import tiny_model
    from tiny_models import tiny_config, tiny_weights, to_bf16_bits

    config = {"hidden_size": 64, "intermediate_size": 96}
    exact = {
        name: (to_bf16_bits(values).astype("u4") << 16).view("f4")
        for name, values in tiny_weights(tiny_config(**config)).items()
    }
    tensors = []
    for dtype, shards in (("BF16", 1), ("F32", 3)):
        directory = tmp_path / dtype / "same"
        tiny_model(directory, dtype=dtype, shards=shards, weights=exact, **config)
        ended = call("quantize", directory, "-o", tmp_path / dtype / "out", "-q")
        assert ended.code == 0, ended.err
        tensors.append((tmp_path / dtype / "out" / "same-Q4_K_M.gguf").read_bytes())
    assert tensors[0] == tensors[1]


def test_each_target_can_have_a_type_of_its_own(model, tmp_path):
    ended = call(
        "quantize", model, "--to", "gguf,mlx", "--type", "gguf=Q5_K_S", "--type", "mlx=8bit-g32",
        "-o", tmp_path / "out", "--json",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    types = [one["plan"]["type"] for one in json.loads(ended.out)["artifacts"]]
    assert types == ["Q5_K_S", "8bit-g32"]


@pytest.mark.parametrize("precision, bits", [("int8", 8.6), ("fp16", 16.1), ("fp32", 32)])
def test_precisions_have_their_sizes(model, tmp_path, precision, bits):
    ended = call(
        "quantize", model, "--to", "gguf,mlx", "--precision", precision, "-o", tmp_path / "out",
        "--json",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    for one in json.loads(ended.out)["artifacts"]:
        assert one["plan"]["bits_per_weight"] == pytest.approx(bits, abs=0.15)


def test_markup_in_a_name_is_not_markup(model, tmp_path):
    ended = run("quantize", model, "-o", tmp_path / "a[/b][red]:smile:", "-q")
    assert ended.code == 0, ended.err
    assert "a[/b][red]:smile:" in ended.out.replace("\n", "")


def test_a_size_in_words_is_the_budget(model, tmp_path):
    command = ("quantize", model, "--to", "gguf,mlx", "--max-size", "0.35MB", "-q", "--json")
    ended = call(*command, "-o", tmp_path / "out")
    assert ended.code == 0, ended.err
    for one in json.loads(ended.out)["artifacts"]:
        assert 300_000 < one["plan"]["nbytes"] <= 350_000
        assert one["recipe"]["budget"]["max_bytes"] == 350_000


@pytest.mark.parametrize(
    ("words", "telling"),
    [
        (("--max-size", "1KB"), "needs at least"),
        (("--max-size", "plenty"), "2.2GB, 900MB"),
        (("--max-size", "1GB", "--max-kl", "0.1"), "choose one"),
        (("--bits-per-weight", "-3"), "above 0"),
        (("--bits-per-weight", "4", "--type", "Q8_0"), "leave out --type"),
    ],
)
def test_budgets_that_cannot_be(model, tmp_path, words, telling):
    ended = call("quantize", model, *words, "-o", tmp_path / "out", "-q")
    assert_refused(ended, 2, telling)
    assert files_in(tmp_path) == []
