"""Shut this process in for the rest of its life, before it opens what a stranger made.

On Linux the kernel then refuses, whatever code runs here:

| what | through |
| --- | --- |
| files: reading any but the given ones, writing at all | Landlock (Linux 5.13) |
| TCP (Linux 6.7), signals to other processes (6.12) | Landlock |
| sockets of every kind, other processes: new ones, their memory | a seccomp filter (x86-64, Arm) |
| what only root may do | root's capabilities, given up |

Both are inherited by everything that is started from here, and neither can be undone. What a system
lacks is left out: Windows and macOS have none of it, and `limits.py` holds on all but Windows.

Only the thread that asks is shut in, and those that it starts: confine before any library starts
threads. So this module needs nothing but the standard library.
Source: Documentation/userspace-api/landlock.rst and include/uapi/linux of Linux 6.18.
"""

import ctypes
import errno
import os
import platform
import stat
import struct
import sys
from collections.abc import Iterable
from pathlib import Path

PACKAGE = str(Path(__file__).parents[1])

NO_NEW_PRIVILEGES, SECCOMP = 38, 22
"""Of prctl(2): PR_SET_NO_NEW_PRIVS and PR_SET_SECCOMP."""

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
"""Landlock's system calls; the numbers are the same on every processor."""
FILES_BY_VERSION = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
"""The rights to files that each version of Landlock knows; a later one has those of the last."""
READ_FILE, READ_DIRECTORY, WRITE_FILE, CONTROL_DEVICE = 1 << 2, 1 << 3, 1 << 1, 1 << 15
TCP, TCP_SINCE = 0b11, 4
"""To bind to a port, and to connect to one."""
SCOPES, SCOPES_SINCE = 0b11, 6
"""Abstract Unix sockets of others, and signals to others."""
BENEATH_PATH, PORT = 1, 2
"""Kinds of rules."""

SYSTEM = (
    "/bin", "/sbin", "/usr", "/lib", "/lib32", "/lib64", "/opt", "/nix/store", "/gnu/store",
    "/proc", "/sys", "/dev/urandom", "/dev/random", "/dev/zero",
    "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/localtime", "/etc/timezone",
    "/etc/alternatives", "/etc/OpenCL",
)  # fmt: skip
"""What programs and their libraries read of the system itself: no files of any user."""
DEVICES = ("null", "dri", "kfd", "accel", "nvidia*")
"""Of /dev: nothing, and the processors that a runtime may compute on."""

X86_64, ARM_64 = 0xC000003E, 0xC00000B7
"""AUDIT_ARCH_X86_64 and AUDIT_ARCH_AARCH64."""
FORBIDDEN = {
    X86_64: {
        "execve": 59, "execveat": 322, "fork": 57, "vfork": 58, "ptrace": 101,
        "process_vm_readv": 310, "process_vm_writev": 311, "io_uring_setup": 425,
        "kill": 62, "pidfd_send_signal": 424, "rt_sigqueueinfo": 129, "rt_tgsigqueueinfo": 297,
        "bpf": 321, "perf_event_open": 298, "userfaultfd": 323, "keyctl": 250,
    },
    ARM_64: {
        "execve": 221, "execveat": 281, "ptrace": 117,
        "process_vm_readv": 270, "process_vm_writev": 271, "io_uring_setup": 425,
        "kill": 129, "pidfd_send_signal": 424, "rt_sigqueueinfo": 138, "rt_tgsigqueueinfo": 240,
        "bpf": 280, "perf_event_open": 241, "userfaultfd": 282, "keyctl": 219,
    },
}  # fmt: skip
"""System calls that no runtime needs, by processor: linux/arch/*/syscall tables."""
SOCKETS = {
    X86_64: {"socket": 41, "connect": 42, "bind": 49, "listen": 50, "accept": 43, "accept4": 288},
    ARM_64: {
        "socket": 198, "connect": 203, "bind": 200, "listen": 201, "accept": 202, "accept4": 242,
    },
}  # fmt: skip
CLONE = {X86_64: 56, ARM_64: 220}
"""The call that starts a thread or a process, which its flags tell."""
CLONE_3 = 435
"""Its successor, whose flags a filter cannot see. Where it is missing, libraries take the other."""
THREAD = 0x00010000
"""CLONE_THREAD."""
FOREIGN_NUMBERS = 0x40000000
"""On x86-64, numbers from here on are of another calling convention (x32)."""

CAPABILITIES = 0x20080522
"""_LINUX_CAPABILITY_VERSION_3."""
READ_ANY_FILE = 1 << 2
"""CAP_DAC_READ_SEARCH: root may go on reading what Landlock lets through, whoever owns it."""


def confine(readable: Iterable[Path], port: int | None = None) -> tuple[str, ...]:
    """Let this thread, and all that it starts, read no files but those under `readable` and the
    system's and Python's own, write none, and reach no network.

    With `port` sockets are left, TCP on that port of this machine alone where the kernel can tell.
    Returns what is enforced: "files", "network", "system calls", "capabilities".
    """
    if not sys.platform.startswith("linux"):
        return ()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0) != 0:
        return ()
    enforced = _landlock(libc, readable, port)
    if _drop_capabilities(libc):
        enforced.append("capabilities")
    if _filter_calls(libc, sockets=port is not None):
        enforced.append("system calls")
    return tuple(enforced)


def own_files() -> tuple[Path, ...]:
    """Where Python, its packages, phiquant and the libraries that are loaded already lie."""
    named = [sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix, *sys.path, PACKAGE]
    named += os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)
    return tuple(dict.fromkeys(Path(name) for name in [*named, *_mapped_folders()] if name))


def _mapped_folders() -> Iterable[str]:
    try:
        lines = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    files = (line.partition("/")[2] for line in lines if "/" in line)
    return (str(Path("/", name).parent) for name in files if ".so" in name)


def _landlock(libc: ctypes.CDLL, readable: Iterable[Path], port: int | None) -> list[str]:
    """Restrict files and TCP; what of it this kernel does."""
    version = libc.syscall(CREATE_RULESET, None, ctypes.c_size_t(0), 1)
    if version < 1:
        return []
    files = FILES_BY_VERSION[max(known for known in FILES_BY_VERSION if known <= version)]
    tcp = TCP if version >= TCP_SINCE else 0
    scopes = SCOPES if version >= SCOPES_SINCE else 0
    attributes = struct.pack("=QQQ", files, tcp, scopes)
    size = 8 if version < TCP_SINCE else 16 if version < SCOPES_SINCE else 24
    rules = libc.syscall(CREATE_RULESET, attributes, ctypes.c_size_t(size), 0)
    if rules < 0:
        return []
    try:
        for path in dict.fromkeys([*map(Path, SYSTEM), *own_files(), *readable]):
            _allow(libc, rules, path, READ_FILE | READ_DIRECTORY)
        for path in (device for name in DEVICES for device in Path("/dev").glob(name)):
            rights = READ_FILE | READ_DIRECTORY | WRITE_FILE | CONTROL_DEVICE
            _allow(libc, rules, path, rights & files)
        if tcp and port is not None:
            rule = struct.pack("=QQ", TCP, port)
            libc.syscall(ADD_RULE, rules, PORT, rule, 0)
        if libc.syscall(RESTRICT_SELF, rules, 0) != 0:
            return []
    finally:
        os.close(rules)
    return ["files", "network"] if tcp else ["files"]


def _allow(libc: ctypes.CDLL, rules: int, path: Path, rights: int) -> None:
    """Add a rule for what lies at `path`; nothing needs to."""
    try:
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except (OSError, ValueError):
        return
    try:
        if not stat.S_ISDIR(os.fstat(opened).st_mode):
            rights &= ~READ_DIRECTORY
        rule = struct.pack("=Qi", rights, opened)
        libc.syscall(ADD_RULE, rules, BENEATH_PATH, rule, 0)
    finally:
        os.close(opened)


def _drop_capabilities(libc: ctypes.CDLL) -> bool:
    """Give up what only root may do, but for reading files of others."""
    header = struct.pack("=Ii", CAPABILITIES, 0)
    held = ctypes.create_string_buffer(24)
    if libc.capget(header, held) != 0:
        return False
    kept = struct.unpack("=6I", held.raw)[1] & READ_ANY_FILE
    return bool(libc.capset(header, struct.pack("=6I", kept, kept, 0, 0, 0, 0)) == 0)


class _Instruction(ctypes.Structure):
    """`sock_filter` of linux/filter.h."""

    _fields_ = (
        ("code", ctypes.c_uint16),
        ("if_true", ctypes.c_uint8),
        ("if_false", ctypes.c_uint8),
        ("value", ctypes.c_uint32),
    )


class _Program(ctypes.Structure):
    """`sock_fprog` of linux/filter.h."""

    _fields_ = (("length", ctypes.c_uint16), ("instructions", ctypes.POINTER(_Instruction)))


LOAD, JUMP_IF_EQUAL, JUMP_IF_AT_LEAST, JUMP_IF_SET, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
"""Codes of the filter's machine: a word of the call, three jumps, a verdict."""
ALLOW, REFUSE, MISSING = 0x7FFF0000, 0x00050000 | errno.EACCES, 0x00050000 | errno.ENOSYS
NUMBER, PROCESSOR, FIRST_ARGUMENT = 0, 4, 16
"""Where the call's number, the processor's kind and half an argument stand in what a filter
sees."""


def _filter_calls(libc: ctypes.CDLL, sockets: bool) -> bool:
    """Refuse calls that no runtime needs, with the error that files give: "permission denied"."""
    processor = {"x86_64": X86_64, "aarch64": ARM_64}.get(platform.machine())
    if processor is None or struct.calcsize("P") != 8:
        return False
    forbidden = set(FORBIDDEN[processor].values())
    if not sockets:
        forbidden |= set(SOCKETS[processor].values())
    program = _instructions(processor, sorted(forbidden))
    code = (_Instruction * len(program))(*(_Instruction(*words) for words in program))
    described = _Program(len(program), code)
    return bool(libc.prctl(SECCOMP, 2, ctypes.byref(described), 0, 0) == 0)


def _instructions(processor: int, forbidden: list[int]) -> list[tuple[int, int, int, int]]:
    """Any call of another processor's kind is refused, those that are `forbidden`, and new
    processes.

    A jump has two distances, in instructions that it skips: if what it asks is so, and if not.
    """
    count = len(forbidden)
    refuse = count + 7
    """Where the verdict REFUSE stands, counted from the first of the `forbidden`."""
    return [
        (LOAD, 0, 0, PROCESSOR),
        (JUMP_IF_EQUAL, 0, refuse + 2, processor),
        (LOAD, 0, 0, NUMBER),
        (JUMP_IF_AT_LEAST, refuse, 0, FOREIGN_NUMBERS),
        *((JUMP_IF_EQUAL, refuse - at - 1, 0, number) for at, number in enumerate(forbidden)),
        (JUMP_IF_EQUAL, 0, 1, CLONE_3),
        (RETURN, 0, 0, MISSING),
        (JUMP_IF_EQUAL, 1, 0, CLONE[processor]),
        (RETURN, 0, 0, ALLOW),
        (LOAD, 0, 0, FIRST_ARGUMENT),
        (JUMP_IF_SET, 0, 1, THREAD),
        (RETURN, 0, 0, ALLOW),
        (RETURN, 0, 0, REFUSE),
    ]
