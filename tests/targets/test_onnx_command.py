"""The lines that the model card gives for an ONNX artifact, run as they stand there."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx_tiny import tiny_source, write_artifact

from command_line import environment
from phiquant.targets.onnx import TARGET

pytest.importorskip("onnxruntime_genai")
pytest.importorskip("onnx_ir")


@pytest.mark.parametrize("template", [True, False])
def test_the_cards_command_answers_the_models_own_prompt(tmp_path, template):
    source = tiny_source(tmp_path / "source", dtype="F32")
    path = source.directory / "tokenizer_config.json"
    config = json.loads(path.read_text())
    if not template:
        del config["chat_template"]
    path.write_text(json.dumps(config))
    write_artifact(source, tmp_path / "out", "fp32")
    folder = Path(sys.executable).parent
    ended = subprocess.run(
        TARGET.command(tmp_path / "out"), shell=True, cwd=tmp_path / "out",
        capture_output=True, text=True, check=True,
        env=environment(PATH=os.pathsep.join([str(folder), os.environ["PATH"]])),
    )  # fmt: skip
    question = "Why is the sky blue?"
    prompt = f"<|user|>{question}<|end|><|assistant|>" if template else question
    with TARGET.runner(tmp_path / "out") as runner:
        tokens = np.array(runner.tokenize(prompt), np.int32)
        answer = runner.generate(tokens, 200)
    assert len(answer.tokens) > 10
    assert ended.stdout.strip() == answer.text.strip()
