"""The examples of docs/python.md, in the order of the page, as a reader runs them."""

import ast
import re
from pathlib import Path

import pytest

import phiquant
from command_line import tiny_model

PAGE = Path(__file__).parents[2] / "docs" / "python.md"
EXAMPLES = re.findall(r"(?ms)^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"))
MODEL = "microsoft/Phi-4-mini-instruct"


def imported(example: str) -> set[str]:
    """The names that an example takes from `phiquant` itself."""
    return {
        alias.name
        for node in ast.walk(ast.parse(example))
        if isinstance(node, ast.ImportFrom) and node.module == "phiquant"
        for alias in node.names
    }


def test_examples_import_public_names():
    names = set().union(*map(imported, EXAMPLES))
    assert names <= set(phiquant.__all__)
    assert {"Wish", "Budget", "Settings", "EvaluationText", "ReferenceFigures", "Progress"} <= names
    assert "carry_out" in names


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A working directory with the page's text, and a tiny model in the place of the hub's."""
    (tmp_path / "mails.txt").write_text("The quick brown fox jumps over the lazy dog. " * 200)
    monkeypatch.chdir(tmp_path)
    return tiny_model(tmp_path / "model")


def run(example: str, model: Path) -> None:
    exec(compile(example.replace(MODEL, str(model)), str(PAGE), "exec"), {"__name__": "example"})


def test_examples_that_run_nothing(workplace, capsys):
    (planned,) = (example for example in EXAMPLES if "carry_out(" in example)
    (advised,) = (example for example in EXAMPLES if "recommend(" in example)
    for example in (planned, advised):
        run(example, workplace)
    out = capsys.readouterr().out
    assert "quantizing: " in out
    assert "output.weight" in out
    assert "gguf on cpu, Q4_K_M" in out


@pytest.mark.long
def test_all_examples(workplace, capsys):
    pytest.importorskip("mlx_lm")
    for example in EXAMPLES:
        run(example, workplace)
    assert "phi-4-mini/mlx True" in capsys.readouterr().out
    assert '"verification"' in Path("phi-4-mini/gguf/phiquant.json").read_text(encoding="utf-8")
