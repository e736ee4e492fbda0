"""`phiquant verify`: the verdict, its exit code, and the record it leaves."""

import json
import shutil
import struct

import pytest

from command_line import assert_refused, call, run
from phiquant.targets.gguf.file import read_gguf


@pytest.fixture
def artifact(made, tmp_path):
    """A GGUF artifact of one's own."""
    return shutil.copytree(made[0] / "gguf", tmp_path / "artifact")


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """A text short enough to be quick."""
    path = tmp_path_factory.mktemp("text") / "short.txt"
    path.write_text("The quick brown fox jumps over the lazy dog. 1234 = 12 * 3.\n" * 20)
    return path


def test_a_sound_artifact_passes_and_its_record_says_so(model, artifact, text):
    ended = run("verify", artifact, "--against", model, "--text", text, "--json")
    assert ended.code == 0, ended.err
    document = json.loads(ended.out)
    assert document["passed"] is True
    assert 0 < document["figures"]["mean"]["value"] < 0.1
    record = json.loads((artifact / "phiquant.json").read_text(encoding="utf-8"))
    assert record["verification"] == document
    assert "KL divergence" in (artifact / "README.md").read_text(encoding="utf-8")


def test_a_tampered_artifact_fails(model, artifact, text):
    (file,) = artifact.glob("*.gguf")
    data = bytearray(file.read_bytes())
    data[-5000:-4000] = bytes(255 - byte for byte in data[-5000:-4000])
    file.write_bytes(data)
    ended = call("verify", artifact, "--against", model, "--text", text, "-q")
    assert ended.code == 3
    assert "FAILED" in ended.out
    assert "changed since they were written" in ended.err
    assert len(ended.err.splitlines()) == 1
    record = json.loads((artifact / "phiquant.json").read_text(encoding="utf-8"))
    assert record["verification"]["passed"] is False


def test_a_truncated_artifact_fails_with_one_document(model, artifact, text):
    (file,) = artifact.glob("*.gguf")
    file.write_bytes(file.read_bytes()[:-5000])
    ended = call("verify", artifact, "--against", model, "--text", text, "--json")
    assert ended.code == 3
    assert json.loads(ended.out)["passed"] is False
    assert "cut off" in ended.out
    record = json.loads((artifact / "phiquant.json").read_text(encoding="utf-8"))
    assert record["verification"]["passed"] is False


def test_a_token_that_is_there_twice_does_not_kill_the_process(model, artifact, text):
    """llama.cpp would abort."""
    (file,) = artifact.glob("*.gguf")
    data = file.read_bytes()
    once, twice = (b"\x01" + b"\0" * 7 + letter for letter in (b"q", b"w"))
    assert once in data
    file.write_bytes(data.replace(once, twice, 1))
    ended = run("verify", artifact, "--against", model, "--text", text, "-q", "--json")
    assert ended.code == 3, ended.err
    assert "twice" in ended.out


def test_weights_that_lead_to_infinity_are_the_artifacts_fault(model, artifact, text):
    """Every weight is finite; what the network makes of them is not."""
    (file,) = artifact.glob("*.gguf")
    gains = {tensor.name: tensor for tensor in read_gguf(file).tensors}["output_norm.weight"]
    data = bytearray(file.read_bytes())
    data[gains.offset : gains.offset + gains.nbytes] = struct.pack("<f", 3e38) * gains.shape[0]
    file.write_bytes(data)
    ended = run("verify", artifact, "--against", model, "--text", text, "-q", "--json")
    assert ended.code == 3, ended.err
    assert "not finite" in ended.out
    assert "Warning" not in ended.err


def test_another_models_artifact_fails(artifact, text, tmp_path):
    from command_line import tiny_model

    other = tiny_model(tmp_path / "other", seed=9)
    ended = call("verify", artifact, "--against", other, "--text", text, "-q")
    assert ended.code == 3
    assert "no rounding does" in ended.err + ended.out


def test_a_limit_of_ones_own_decides(model, artifact, text):
    words = ("--against", model, "--text", text, "-q", "--json")
    ended = call("verify", artifact, *words, "--max-kl", "1e-9")
    assert ended.code == 3
    assert "divergence" in ended.err


@pytest.mark.parametrize("limit", ["nan", "-1"])
def test_a_limit_that_is_none_is_refused(model, made, limit):
    ended = call("verify", made[0] / "gguf", "--against", model, f"--max-kl={limit}")
    assert_refused(ended, 2, "--max-kl")


def test_figures_that_cannot_be_recorded_are_still_shown(model, artifact, text, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("phiquant.cli.verification.record_verification", refuse)
    ended = call("verify", artifact, "--against", model, "--text", text, "-q", "--json")
    assert ended.code == 0
    assert json.loads(ended.out)["passed"] is True
    assert "not recorded" in ended.err


def test_what_cannot_be_verified_at_all_is_a_bad_request(model, made, tmp_path):
    (tmp_path / "empty").mkdir()
    against = ("--against", model, "-q")
    assert_refused(call("verify", tmp_path / "empty", *against), 2, "no artifact")
    assert_refused(call("verify", tmp_path / "nowhere", *against), 2, "found nothing")
    assert_refused(call("verify", made[0], *against), 2, "no artifact")
    absent = call("verify", made[0] / "gguf", *against, "--text", tmp_path / "no.txt")
    assert_refused(absent, 2, "no.txt")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9 " * 50)
    latin = call("verify", made[0] / "gguf", *against, "--text", tmp_path / "latin.txt")
    assert_refused(latin, 2, "UTF-8")
    (tmp_path / "short.txt").write_text("")
    short = call("verify", made[0] / "gguf", *against, "--text", tmp_path / "short.txt")
    assert_refused(short, 2, "at least 2")


def test_a_record_by_another_hand_is_refused(model, artifact, text):
    (artifact / "phiquant.json").write_text('{"schema": 1, "files": {"../x": "0"}}')
    ended = call("verify", artifact, "--against", model, "--text", text, "-q")
    assert_refused(ended, 2, "phiquant.json")


def test_a_record_of_another_kind_does_not_cost_the_verdict(model, artifact, text):
    record = json.loads((artifact / "phiquant.json").read_text(encoding="utf-8"))
    path = artifact / "phiquant.json"
    path.write_text(json.dumps(record | {"plan": record["plan"] | {"rows": [1]}}))
    words = ("verify", artifact, "--against", model, "--text", text, "-q")
    assert_refused(call(*words), 2, "phiquant.json", "remove it")
    path.write_text(json.dumps(record | {"plan": record["plan"] | {"target": "tomorrow"}}))
    ended = call(*words, "--json")
    assert ended.code == 0
    assert json.loads(ended.out)["passed"] is True
    assert "not recorded" in ended.err


def test_code_that_comes_with_an_mlx_artifact_is_not_run(model, made, text, tmp_path):
    artifact = shutil.copytree(made[0] / "mlx", tmp_path / "mlx")
    config = json.loads((artifact / "config.json").read_text())
    (artifact / "config.json").write_text(json.dumps(config | {"model_file": "evil.py"}))
    (artifact / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    ended = call("verify", artifact, "--against", model, "--text", text, "-q")
    assert ended.code == 3
    assert not (tmp_path / "ran").exists()
    assert "model_file" in ended.err + ended.out.replace("\n", " ")
