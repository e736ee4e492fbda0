"""The house flows one way: a folder imports only from itself and from those before it."""

import ast
import subprocess
import sys
from pathlib import Path

import phiquant
from phiquant.targets.table import MODULES

HOUSE = Path(phiquant.__file__).parent
ORDER = [
    "errors",
    "progress",
    "host",
    "phi",
    "quantization",
    "calibration",
    "planning",
    "devices",
    "targets",
    "recipe",
    "evaluation",
    "reporting",
    "job",
    "recommendation",
    "demo",
    "cli",
    "__main__",
]
HEAVY = {"torch", "transformers"}
OPTIONAL = {"gguf", "llama_cpp", "mlx", "mlx_lm", "huggingface_hub"}


def room(path):
    return path.relative_to(HOUSE).parts[0].removesuffix(".py")


def imported(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def modules():
    return [path for path in HOUSE.rglob("*.py") if path != HOUSE / "__init__.py"]


def test_every_room_has_a_place_in_the_flow():
    assert {room(path) for path in modules()} == set(ORDER)


def test_imports_flow_one_way():
    for path in modules():
        for name in imported(path):
            if name.startswith("phiquant.") and name != "phiquant.__version__":
                other = name.split(".")[1]
                assert ORDER.index(other) <= ORDER.index(room(path)), f"{path} imports {name}"


def test_a_target_knows_no_other_target():
    folders = [path for path in (HOUSE / "targets").iterdir() if path.is_dir()]
    for folder in folders:
        others = {f"phiquant.targets.{other.name}" for other in folders if other != folder}
        for path in folder.rglob("*.py"):
            for name in imported(path):
                assert ".".join(name.split(".")[:3]) not in others, f"{path} imports {name}"


def words(tree):
    """The strings of a module, but the packages that are named as missing."""
    packages = {
        argument
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "MissingDependency"
        for argument in call.args
    }
    for node in ast.walk(tree):
        text = isinstance(node, ast.Constant) and isinstance(node.value, str)
        if text and node not in packages:
            yield node.value


def test_nothing_outside_of_targets_knows_a_target_by_name():
    for path in modules():
        if room(path) == "targets":
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert not set(MODULES) & set(words(tree)), path
        for name in imported(path):
            assert name.split(".")[1:3] not in [["targets", one] for one in MODULES], path


def test_nothing_imports_torch_or_transformers():
    for path in modules():
        assert not HEAVY & {name.split(".")[0] for name in imported(path)}, path


def test_importing_everything_needs_no_optional_package():
    names = [
        ".".join(path.relative_to(HOUSE.parent).with_suffix("").parts).removesuffix(".__init__")
        for path in modules()
        if path.name != "__main__.py"
    ]
    blocked = sorted(HEAVY | OPTIONAL)
    program = (
        f"import sys, importlib\nfor name in {blocked!r}: sys.modules[name] = None\n"
        f"for name in {names!r}: importlib.import_module(name)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
