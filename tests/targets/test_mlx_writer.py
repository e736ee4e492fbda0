"""The files around the weights: no code comes along, and a wrong tokenizer stops the job early."""

import json

import pytest
from mlx_tiny import tiny_source, write_artifact

from phiquant.errors import TokenizerError
from phiquant.phi.checkpoint import Checkpoint
from phiquant.phi.survey import survey
from phiquant.recipe import Recipe
from phiquant.targets.mlx import TARGET


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def edit(path, **changes):
    path.write_text(json.dumps(read(path) | changes), encoding="utf-8")


@pytest.fixture
def source(tmp_path):
    return tiny_source(tmp_path / "source")


def writer(source, directory, **asked):
    source = Checkpoint.open(source.directory)
    recipe = Recipe("mlx", **asked)
    plan = TARGET.plan(source.architecture, survey(source), recipe.form)
    return TARGET.writer(plan, source, recipe.form, directory)


def test_nothing_that_would_run_code_comes_along(source, tmp_path):
    code = {"AutoModelForCausalLM": "modeling_evil.Model", "AutoTokenizer": ["evil.T", None]}
    edit(source.directory / "config.json", auto_map=code, model_file="evil.py")
    edit(source.directory / "tokenizer_config.json", auto_map=code)
    for name in ("modeling_evil.py", "evil.py"):
        (source.directory / name).write_text("raise SystemExit(1)")
    write_artifact(Checkpoint.open(source.directory), tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.py"))
    for path in (tmp_path / "out").glob("*config.json"):
        assert "evil" not in path.read_text()
    pytest.importorskip("mlx_lm")
    with TARGET.runner(tmp_path / "out") as runner:
        assert runner.tokenize("a")


def test_tokenizer_files_are_copied_as_they_are(source, tmp_path):
    write_artifact(source, tmp_path / "out")
    for name in ("tokenizer.json", "special_tokens_map.json"):
        assert (tmp_path / "out" / name).read_bytes() == (source.directory / name).read_bytes()
    theirs = read(source.directory / "tokenizer_config.json")
    assert read(tmp_path / "out" / "tokenizer_config.json") == theirs


def test_ends_of_sequence_of_both_configs_are_united(source, tmp_path):
    pytest.importorskip("mlx_lm")
    edit(source.directory / "config.json", eos_token_id=40)
    edit(source.directory / "generation_config.json", eos_token_id=[41, 42])
    write_artifact(Checkpoint.open(source.directory), tmp_path / "out")
    for name in ("config.json", "generation_config.json"):
        assert set(read(tmp_path / "out" / name)["eos_token_id"]) >= {40, 41, 42}
    with TARGET.runner(tmp_path / "out") as runner:
        assert all(runner.stops_at(token) for token in (40, 41, 42))
        assert not runner.stops_at(43)


def test_the_config_speaks_mlx_lms_language(tmp_path):
    nested = {"rope_type": "default", "rope_theta": 777.0, "partial_rotary_factor": 0.5}
    source = tiny_source(
        tmp_path / "source", rope_parameters=nested, rope_theta=None, partial_rotary_factor=None
    )
    write_artifact(source, tmp_path / "out", type="fp16")
    config = read(tmp_path / "out" / "config.json")
    assert (config["rope_theta"], config["partial_rotary_factor"]) == (777.0, 0.5)
    assert config["rope_scaling"] is None
    assert "rope_parameters" not in config
    assert config["torch_dtype"] == "float16"
    assert "quantization" not in config
    assert list(config) == sorted(config)


def test_a_tokenizer_that_cannot_serve_is_refused_before_anything_is_written(source, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (source.directory / "tokenizer.json").write_text("{}")
    with pytest.raises(TokenizerError):
        writer(source, out)
    (source.directory / "tokenizer.json").unlink()
    with pytest.raises(TokenizerError):
        writer(source, out)
    assert not list(out.iterdir())


def test_an_end_of_sequence_outside_the_vocabulary_is_refused(source, tmp_path):
    edit(source.directory / "generation_config.json", eos_token_id=512)
    with pytest.raises(TokenizerError, match="512"):
        writer(source, tmp_path)


def test_a_tokenizer_of_a_larger_model_is_refused(tmp_path):
    source = tiny_source(tmp_path / "source", vocab_size=400)
    with pytest.raises(TokenizerError, match="400"):
        writer(source, tmp_path)


def test_an_interrupted_writer_closes_its_files(source, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(RuntimeError, match="stop"), writer(source, tmp_path / "out"):
        raise RuntimeError("stop")
    assert not (tmp_path / "out" / "config.json").exists()
