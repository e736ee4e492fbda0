"""The source distribution and the wheel, as `make dist` builds them, and the wheel installed."""

import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

from command_line import tiny_model

ROOT = Path(__file__).parents[1]
HOUSE = ROOT / "src/phiquant"
TARGETS = ("gguf", "mlx", "onnx", "openvino")

NO_SOURCES = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
"""This process's environment, without the path that leads to the sources."""


def run(*words, **options):
    """A program's output; its errors are shown where it fails."""
    done = subprocess.run(
        [*map(str, words)], capture_output=True, text=True, check=False, env=NO_SOURCES, **options
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build(source, output):
    """The wheel and the source distribution of the sources at `source`."""
    for package in ("build", "hatchling", "hatch_fancy_pypi_readme"):
        pytest.importorskip(package)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", output, source)
    (wheel,), (sdist,) = output.glob("*.whl"), output.glob("*.tar.gz")
    return wheel, sdist


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return build(ROOT, tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def wheel(built):
    return built[0]


def metadata(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return Parser().parsestr(archive.read(name).decode("utf-8"))


def test_every_file_of_the_package_is_in_the_wheel(wheel):
    """Modules and data alike: devices, texts, tables of losses, the family of models."""
    ours = {
        path.relative_to(HOUSE.parent).as_posix(): path.read_bytes()
        for path in HOUSE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {Path(name).suffix for name in ours} == {
        ".py",
        ".toml",
        ".txt",
        ".jsonl",
        ".md",
        ".typed",
    }
    with zipfile.ZipFile(wheel) as archive:
        packed = {
            name: archive.read(name)
            for name in archive.namelist()
            if not name.split("/")[0].endswith(".dist-info")
        }
    assert packed == ours


def test_the_same_sources_give_the_same_bytes(built, tmp_path):
    """Whatever the folder, the times and the permissions: from the sources in the distribution."""
    with tarfile.open(built[1]) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    for path in source.rglob("*"):
        os.utime(path, (1_600_000_000, 1_600_000_000))
        path.chmod(0o755 if path.is_dir() else 0o600)
    for ours, again in zip(built, build(source, tmp_path / "dist"), strict=True):
        assert ours.name == again.name
        assert ours.read_bytes() == again.read_bytes()


def test_package_indexes_take_both(built):
    pytest.importorskip("twine")
    told = run(sys.executable, "-m", "twine", "--no-color", "check", "--strict", *built)
    assert told.count("PASSED") == 2


def test_the_readme_leads_nowhere_that_is_not_there(wheel):
    """On a package index no file of the repository stands beside it."""
    readme = metadata(wheel).get_payload()
    renderer = pytest.importorskip("readme_renderer.markdown")
    links = re.findall(r'(?:href|src)="([^"]*)"', renderer.render(readme))
    assert all(link.startswith(("https://", "http://", "#user-content-")) for link in links), links
    assert "phiquant quantize" in readme and "Which artifact for my device?" in readme


def test_what_the_readme_says_to_install_is_what_is_built(wheel):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    lines = re.findall(r"^pip install (.*)$", readme, re.MULTILINE)
    assert lines == ['".[all]"', f'"dist/{wheel.name}[all]"']
    extras = set(metadata(wheel).get_all("Provides-Extra"))
    assert extras == {*TARGETS, "hub", "all"}


@pytest.fixture
def environment(tmp_path):
    """The programs of a new environment, without pip."""
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "environment")
    return tmp_path / "environment" / ("Scripts" if sys.platform == "win32" else "bin")


def install(environment, *words):
    python = next(environment.glob("python*"))
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "--quiet")
    run(*pip, "--disable-pip-version-check", *words)
    where = "import phiquant, sysconfig; print(phiquant.__file__, sysconfig.get_path('purelib'))"
    file, site = run(python, "-c", where, cwd=environment).split()
    assert Path(file).is_relative_to(site)
    return Path(site)


def test_the_installed_wheel_quantizes(wheel, environment, tmp_path):
    """Its dependencies are those of the environment that runs the tests."""
    pytest.importorskip("pip")
    site = install(environment, "--no-deps", "--no-index", wheel)
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    model, phiquant = tiny_model(tmp_path / "tiny"), environment / "phiquant"
    to = ("--to", "gguf", "--precision", "fp16")  # whose kernels are compiled soonest
    run(phiquant, "quantize", model, *to, "-o", tmp_path / "out", cwd=tmp_path)
    assert "F16" in run(phiquant, "inspect", tmp_path / "out", cwd=tmp_path)
    assert "raspberry-pi-5-8gb" in run(phiquant, "devices", cwd=tmp_path)


@pytest.mark.long
def test_the_wheel_with_all_extras_from_the_registry(wheel, environment, tmp_path):
    """As the README says: nothing of this environment is used, and every runtime runs."""
    install(environment, "--only-binary", ":all:", f"{wheel}[all]")
    model, phiquant = tiny_model(tmp_path / "tiny"), environment / "phiquant"
    to = ("--to", ",".join(TARGETS), "--precision", "int4", "-o", tmp_path / "out")
    run(phiquant, "quantize", model, *to, cwd=tmp_path)
    for target in TARGETS:
        told = run(phiquant, "verify", tmp_path / "out" / target, "--against", model, cwd=tmp_path)
        assert told.startswith(f"{target}: ")
