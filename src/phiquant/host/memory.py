"""What this machine has: memory in all, and memory that a new process could take now.

Linux is asked through /proc/meminfo and the limits of its control group (version 2, then 1),
Windows through GlobalMemoryStatusEx, macOS through sysctl and vm_stat. None stands for a system
that does not say.
"""

import ctypes
import os
import re
import subprocess
import sys
from pathlib import Path

MEMINFO = Path("/proc/meminfo")
GROUPS = (
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (
        Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
        Path("/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ),
)
"""A control group's limit and its use; page cache counts as used there, and can be taken back."""


def total_memory() -> int | None:
    """Bytes of memory that the machine, or its control group, has."""
    if sys.platform == "win32":
        return _windows()[0]
    installed = _meminfo("MemTotal") or _sysctl("hw.memsize")
    limits = [limit for limit, _ in _groups()]
    return min([installed, *limits]) if installed is not None else None


def available_memory() -> int | None:
    """Bytes that a new process could take without the system having to swap."""
    if sys.platform == "win32":
        return _windows()[1]
    free = _meminfo("MemAvailable") or _free_on_mac()
    if free is None:
        return None
    return max(0, min([free, *(limit - used for limit, used in _groups())]))


def used_memory(process: int) -> int | None:
    """Bytes that the process with the id `process` has taken, without files that it maps; None if
    the system does not say, as Windows does not here.
    """
    if sys.platform == "darwin":
        text = _output("/bin/ps", "-o", "rss=", "-p", str(process)).strip()
        return int(text) * 1024 if text.isdigit() else None
    try:
        text = Path(f"/proc/{process}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    kilobytes = re.findall(r"^(?:RssAnon|VmSwap):\s+(\d+) kB$", text, re.MULTILINE)
    return sum(map(int, kilobytes)) * 1024 if kilobytes else None


def _meminfo(field: str) -> int | None:
    try:
        text = MEMINFO.read_text(encoding="ascii")
    except OSError:
        return None
    match = re.search(rf"^{field}:\s+(\d+) kB$", text, re.MULTILINE)
    return int(match[1]) * 1024 if match else None


def _groups() -> list[tuple[int, int]]:
    groups = []
    for limit, used in GROUPS:
        try:
            groups.append((int(limit.read_text()), int(used.read_text())))
        except (OSError, ValueError):  # no such group, or "max"
            continue
    return groups


def _sysctl(name: str) -> int | None:
    if sys.platform != "darwin":
        return None
    text = _output("/usr/sbin/sysctl", "-n", name)
    return int(text) if text.strip().isdigit() else None


def _free_on_mac() -> int | None:
    if sys.platform != "darwin":
        return None
    pages = {
        name: int(count)
        for name, count in re.findall(r"^Pages (\w+):\s+(\d+)\.", _output("/usr/bin/vm_stat"), re.M)
    }
    size = os.sysconf("SC_PAGE_SIZE")
    counted = [pages[name] for name in ("free", "inactive", "speculative") if name in pages]
    return size * sum(counted) if counted else None


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout
    except OSError:
        return ""


class _MemoryStatus(ctypes.Structure):
    """MEMORYSTATUSEX of the Windows API."""

    _fields_ = [("length", ctypes.c_uint32), ("load", ctypes.c_uint32)] + [
        (name, ctypes.c_uint64) for name in ("total", "available", "a", "b", "c", "d", "e")
    ]


def _windows() -> tuple[int | None, int | None]:
    status = _MemoryStatus()
    status.length = ctypes.sizeof(status)
    kernel = getattr(ctypes, "windll").kernel32  # noqa: B009 (absent elsewhere)
    if not kernel.GlobalMemoryStatusEx(ctypes.byref(status)):
        return None, None
    return int(status.total), int(status.available)
