"""One chat template in every artifact, the one that transformers uses, and the same prompt."""

import json

import pytest

from command_line import call, tiny_model
from phiquant.evaluation.chat import CONVERSATION, check_chat
from phiquant.evaluation.check import Outcome
from phiquant.phi.tokenizer.tokenizer import read_tokenizer
from phiquant.targets.table import targets
from tiny_models import write_tiny_checkpoint
from tiny_tokenizer import CHAT_TEMPLATE, write_tiny_tokenizer

RUNTIMES = {
    "gguf": "gguf",
    "mlx": "mlx_lm",
    "onnx": "onnxruntime_genai",
    "openvino": "openvino_genai",
}
OLD = "{% for message in messages %}{{ '<|' + message['role'] + '|>' }}old{% endfor %}"
LINES = """\
{% for message in messages %}
    {%- if not loop.first %}

    {% endif %}
    {% if message['role'] == 'system' %}
<|system|>
  {{ message['content'] }}<|end|>
    {% else %}
<|{{ message['role'] }}|>
{{ message['content'] }}<|end|>
    {% endif %}
{% endfor %}
{% if add_generation_prompt %}
<|assistant|>
{% endif %}
"""
REPLACING = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'].replace('2', 'two') }}<|end|>"
    "{% endfor %}<|assistant|>"
)
KEEPING = (
    "{{ bos_token }}{% for m in messages %}<|user|>\n  {%+ if true +%}\n{{ m.content }}<|end|>"
    "{% endif %}{% raw %}{{ no }}{% endraw %}{% endfor %}<|assistant|>"
)
TOKEN = {"content": "<|endoftext|>", "lstrip": False, "__type": "AddedToken"}
IGNORING = (  # as Phi-3's first template: it has no place for the system's turn
    "{% for m in messages %}{% if m['role'] == 'user' %}<|user|>{{ m['content'] }}<|end|>"
    "<|assistant|>{% elif m['role'] == 'assistant' %}{{ m['content'] + '<|end|>' }}{% endif %}"
    "{% endfor %}"
)
CASES = {
    "a list, and tokens as objects": {
        "chat_template": [
            {"name": "rag", "template": OLD},
            {"name": "default", "template": CHAT_TEMPLATE},
        ],
        "eos_token": TOKEN,
        "additional_special_tokens": [TOKEN],
        "tokenizer_class": None,
    },
    "a file beside a text": {
        "chat_template": OLD,
        "chat_template.jinja": LINES.replace("\n", "\r\n"),
    },
    "a method": {"chat_template": REPLACING},
    "no place for the system": {"chat_template": IGNORING},
    "signs and a beginning": {"chat_template": KEEPING, "add_bos_token": True},
}


def change(path, **changes):
    content = json.loads(path.read_text(encoding="utf-8")) | changes
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def checkpoint(directory, case):
    """A tiny model whose tokenizer's files are those of a case."""
    model = tiny_model(directory, num_hidden_layers=1)
    changes = dict(CASES[case])
    if "chat_template.jinja" in changes:
        text = changes.pop("chat_template.jinja")
        (directory / "chat_template.jinja").write_bytes(text.encode())
    change(directory / "tokenizer_config.json", **changes)
    return model


@pytest.fixture(scope="module", params=CASES)
def made(request, tmp_path_factory):
    """The name of a case, its checkpoint, and the directory with the artifacts of all targets."""
    for package in RUNTIMES.values():
        pytest.importorskip(package)
    root = tmp_path_factory.mktemp("made")
    model = checkpoint(root / "model", request.param)
    ended = call("quantize", model, "--to", ",".join(RUNTIMES), "-o", root / "out", "-q")
    assert ended.code == 0, ended.err
    return request.param, model, root / "out"


def chat(artifact, model):
    """The checks of the conversation, by name."""
    (target,) = (target for target in targets() if target.recognises(artifact))
    with target.runner(artifact) as runner:
        results = list(check_chat(runner, read_tokenizer(model, 512)))
    return {check.name: check for check in results}


@pytest.mark.parametrize("target", RUNTIMES)
def test_the_runtime_renders_what_transformers_renders(made, target):
    case, model, out = made
    if target == "gguf":
        pytest.importorskip("xllamacpp")
    check = chat(out / target, model)
    assert check["chat prompt"].outcome is Outcome.PASSED
    if case == "a method" and target == "onnx":
        assert check["chat template"].outcome is Outcome.LIMITED
        assert "Unknown method: replace" in check["chat template"].finding
    elif case == "no place for the system" and target in ("gguf", "openvino"):
        assert check["chat template"].outcome is Outcome.LIMITED  # they put it into the user's
        assert "the system's turn, and only that" in check["chat template"].finding
    else:
        assert check["chat template"].outcome is Outcome.PASSED, check["chat template"].finding
        turns = len(CONVERSATION) - (case == "a method")  # which refuses the system's turn
        assert f"{turns} turns" in check["chat template"].finding


def test_there_is_one_template_and_what_is_left_out_is_said(made):
    case, _, out = made
    assert not list(out.rglob("chat_template*"))
    for target in ("mlx", "onnx", "openvino"):
        config = json.loads((out / target / "tokenizer_config.json").read_text(encoding="utf-8"))
        assert isinstance(config["chat_template"], str)
        assert OLD not in config["chat_template"]
        record = json.loads((out / target / "phiquant.json").read_text(encoding="utf-8"))
        said = any("left out: rag" in note for note in record["plan"]["notes"])
        assert said is case.startswith("a list")


@pytest.fixture
def artifact(tmp_path):
    """A checkpoint and an MLX artifact of it, to tamper with."""
    pytest.importorskip("mlx_lm")
    model = tiny_model(tmp_path / "model", num_hidden_layers=1)
    ended = call("quantize", model, "--to", "mlx", "-o", tmp_path / "mlx", "-q")
    assert ended.code == 0, ended.err
    return model, tmp_path / "mlx"


def test_another_template_in_the_artifact_fails(artifact):
    model, path = artifact
    change(path / "tokenizer_config.json", chat_template=CHAT_TEMPLATE.replace("<|end|>", ""))
    check = chat(path, model)["chat template"]
    assert check.outcome is Outcome.FAILED
    assert "not the model's" in check.finding
    change(path / "tokenizer_config.json", chat_template=None)
    check = chat(path, model)["chat template"]
    assert check.outcome is Outcome.FAILED
    assert "has none" in check.finding


def test_a_chat_prompt_in_other_tokens_fails(tmp_path):
    """The name of a Phi-3 model decides in llama.cpp whether white space after tokens counts."""
    pytest.importorskip("gguf")
    model = tmp_path / "tuned"
    tiny = write_tiny_tokenizer(model, kind="sentencepiece")
    change(model / "tokenizer_config.json", chat_template=LINES)
    ends = {"bos_token_id": tiny.bos, "eos_token_id": [tiny.end, tiny.eos]}
    write_tiny_checkpoint(model, num_hidden_layers=1, pad_token_id=tiny.eos, **ends)
    ended = call("quantize", model, "--to", "gguf", "--precision", "fp32", "-o", tmp_path / "out")
    assert ended.code == 0, ended.err
    assert chat(tmp_path / "out", model)["chat prompt"].outcome is Outcome.PASSED
    (file,) = (tmp_path / "out").glob("*.gguf")
    data = file.read_bytes()
    assert data.count(b"(Phi-3)") == 1
    file.write_bytes(data.replace(b"(Phi-3)", b"(Phi 3)"))
    assert chat(tmp_path / "out", model)["chat prompt"].outcome is Outcome.FAILED


def test_verify_says_it(artifact, tmp_path):
    model, path = artifact
    (tmp_path / "short.txt").write_text("The quick brown fox jumps over the lazy dog. " * 3)
    ended = call("verify", path, "--against", model, "--text", tmp_path / "short.txt", "--json")
    assert ended.code == 0, ended.err
    names = {check["name"]: check["outcome"] for check in json.loads(ended.out)["checks"]}
    assert names["chat template"] == names["chat prompt"] == "passed"
