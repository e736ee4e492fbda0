"""`--device this`: a profile of the machine at hand.

Instruction sets come from /proc/cpuinfo (Linux) or the platform's name, memory from the system,
bandwidth from a short copy of large arrays by every core, accelerators from the runtimes that are
installed: openvino lists its devices, and Metal comes with macOS on Arm. A discrete NVIDIA card
is named and not profiled: it has memory of its own, and the tables have the common ones.
"""

import platform
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from phiquant.devices.device import GIB, Absent, Device, Engine
from phiquant.devices.engines import engines
from phiquant.errors import ResourceError
from phiquant.host.cores import cores
from phiquant.host.memory import available_memory, total_memory

CPUINFO = Path("/proc/cpuinfo")
FEATURES = (
    "avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "amx_bf16", "f16c",
    "asimd", "asimddp", "i8mm", "sve", "bf16",
)  # fmt: skip
"""Instruction sets that the runtimes have kernels for, as Linux spells them."""
COPY_BYTES = 64 << 20
"""Bytes that each core copies: far more than its share of the last cache."""
COPY_ROUNDS = 5


def this_machine() -> Device:
    """Profile the machine. Raises ResourceError where it does not say what memory it has."""
    total, available = total_memory(), available_memory()
    if total is None or available is None:
        raise ResourceError(
            "this system does not say how much memory it has; describe the device in a TOML file"
        )
    names, absent = _engines()
    return Device(
        name="this",
        title=f"this machine ({processor()}, {cores()} cores)",
        kind="other",
        memory_gib=round(total / GIB, 1),
        usable_gib=round(available / GIB, 2),
        bandwidth_gbs=round(measured_bandwidth() / 1e9, 1),
        engines=names,
        source="measured: memory free now, bandwidth of a copy by all cores",
        verified=True,
        absent=absent,
        features=features(),
    )


def processor() -> str:
    """The processor's name."""
    match = re.search(r"^model name\s*:\s*(.+)$", _cpuinfo(), re.MULTILINE)
    return match[1].strip() if match else platform.processor() or platform.machine()


def features() -> tuple[str, ...]:
    """The FEATURES that the processor has; empty where the system does not say."""
    match = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", _cpuinfo(), re.MULTILINE)
    words = set(match[1].split()) if match else set()
    return tuple(name for name in FEATURES if name in words)


def measured_bandwidth() -> float:
    """Bytes a second that all cores together read and write while they copy large arrays."""
    count = COPY_BYTES // 8
    pairs = [(np.ones(count), np.zeros(count)) for _ in range(cores())]
    best = 0.0
    with ThreadPoolExecutor(cores()) as pool:
        for _ in range(COPY_ROUNDS):
            began = time.perf_counter()
            list(pool.map(lambda pair: np.copyto(pair[1], pair[0]), pairs))
            best = max(best, 2 * COPY_BYTES * len(pairs) / (time.perf_counter() - began))
    return best


def _engines() -> tuple[tuple[Engine, ...], tuple[Absent, ...]]:
    arm = platform.machine().lower() in ("arm64", "aarch64")
    metal = arm and sys.platform == "darwin"
    names = ["mlx-metal", "gguf-metal"] if metal else []
    names += [
        f"openvino-{device.lower()}" for device in _openvino_devices() if device in ("GPU", "NPU")
    ]
    names += ["gguf-cpu-arm" if arm else "gguf-cpu-x86", "onnx-cpu"]
    if not arm:
        names.append("openvino-cpu")
    card = _nvidia_card()
    absent = (
        Absent("cuda", f"{card} has memory of its own; name it with --device to plan for it"),
    )
    return tuple(engines()[name] for name in names), absent if card else ()


def _openvino_devices() -> list[str]:
    try:
        import openvino
    except ImportError:
        return []
    return [str(name).partition(".")[0] for name in openvino.Core().available_devices]


def _nvidia_card() -> str:
    try:
        ended = subprocess.run(
            ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            check=False,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return ended.stdout.splitlines()[0].strip() if ended.returncode == 0 and ended.stdout else ""


def _cpuinfo() -> str:
    try:
        return CPUINFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
