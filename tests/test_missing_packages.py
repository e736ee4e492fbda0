"""What messages say to install is what phiquant's extras would install."""

import ast
import tomllib
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import phiquant
from phiquant.errors import MissingDependency

HOUSE = Path(phiquant.__file__).parent
PROJECT = Path(__file__).parents[1] / "pyproject.toml"


def named():
    """Every package that a `MissingDependency` is raised for by name."""
    for path in HOUSE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "MissingDependency":
                package = node.args[0]
                if isinstance(package, ast.Constant):
                    yield Requirement(package.value)


def offered():
    """Every package in the extras, by name."""
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"].values()
    return {Requirement(text).name for extra in extras for text in extra}


def test_every_package_that_is_missed_is_in_an_extra():
    names = {package.name for package in named()}
    assert {"gguf", "mlx-lm", "onnx-ir", "onnxruntime-genai", "openvino-genai"} <= names
    assert names <= offered()


@pytest.mark.parametrize(
    ("package", "brings"),
    [
        ("onnxruntime-genai", "onnxruntime"),
        ("openvino-genai", "openvino-tokenizers"),
        ("openvino-tokenizers", "openvino"),
        ("mlx-lm[cpu]", "mlx[cpu]"),
    ],
)
def test_a_package_brings_what_it_is_used_with(package, brings):
    """So that one line installs all that the runner imports."""
    asked, wanted = Requirement(package), Requirement(brings)
    extra = {"extra": next(iter(asked.extras), "")}
    try:
        needs = map(Requirement, requires(asked.name) or ())
    except PackageNotFoundError:
        pytest.skip(f"{asked.name} is not installed")
    held = [need for need in needs if need.marker is None or need.marker.evaluate(extra)]
    assert any(
        need.name.replace("_", "-") == wanted.name and need.extras == wanted.extras for need in held
    )


def test_the_message_is_a_command():
    told = str(MissingDependency("mlx-lm[cpu]", "running an MLX artifact"))
    assert told.endswith('install it with: pip install "mlx-lm[cpu]"')
    assert "phiquant[" not in told
