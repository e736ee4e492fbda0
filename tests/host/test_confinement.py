"""What a process that shut itself in can still do: one program each, run by Python itself."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from phiquant.host.child import python

LINUX = sys.platform.startswith("linux")
FIRST = """
import json, os, socket, subprocess, sys, threading
from pathlib import Path
from phiquant.host.confinement import confine
from phiquant.host.limits import limit_resources

def tried(attempt):
    try:
        attempt()
    except OSError as error:
        return type(error).__name__
    return "done"

given, outside = map(Path, sys.argv[1:])
"""


def told(statements, *words):
    """The JSON that a program prints."""
    command = [*python(f"exec({FIRST + statements!r})"), *map(str, words)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


@pytest.fixture
def places(tmp_path):
    """A directory that a program is given, and one that it is not, each with a file."""
    for name in ("given", "outside"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file.txt").write_text("text")
    return tmp_path / "given", tmp_path / "outside"


@pytest.fixture(scope="module")
def enforced(tmp_path_factory):
    """What this machine's kernel enforces."""
    if not LINUX:
        pytest.skip("nothing is enforced on this system")
    return told("print(json.dumps(confine([])))", *2 * [tmp_path_factory.mktemp("none")])


def test_files(enforced, places):
    if "files" not in enforced:
        pytest.skip("this kernel has no Landlock")
    outcomes = told(
        """
confine([given])
print(json.dumps({
    "own": tried((given / "file.txt").read_text),
    "listed": tried(lambda: os.listdir(given)),
    "other": tried((outside / "file.txt").read_text),
    "other listed": tried(lambda: os.listdir(outside)),
    "link": tried((given / "link.txt").read_text),
    "passwords": tried(Path("/etc/passwd").read_text),
    "written": tried(lambda: (given / "new.txt").write_text("x")),
    "changed": tried(lambda: (given / "file.txt").write_text("x")),
    "removed": tried((given / "file.txt").unlink),
    "null": tried(lambda: Path("/dev/null").write_text("x")),
}))
""",
        *with_link(places),
    )
    refused = {name for name, end in outcomes.items() if end == "PermissionError"}
    assert refused == {
        "other", "other listed", "link", "passwords", "written", "changed", "removed"
    }  # fmt: skip
    assert {outcomes[name] for name in outcomes.keys() - refused} == {"done"}
    assert (places[0] / "file.txt").read_text() == "text"


def with_link(places):
    """The same places with a link from one into the other."""
    (places[0] / "link.txt").symlink_to(places[1] / "file.txt")
    return places


def test_sockets_and_processes(enforced, places):
    if "system calls" not in enforced:
        pytest.skip("no filter of system calls for this processor")
    outcomes = told(
        """
confine([given])
print(json.dumps({
    "socket": tried(socket.socket),
    "datagrams": tried(lambda: socket.socket(type=socket.SOCK_DGRAM)),
    "unix": tried(lambda: socket.socket(socket.AF_UNIX)),
    "program": tried(lambda: subprocess.run([sys.executable, "-c", ""])),
    "replaced": tried(lambda: os.execv(sys.executable, [sys.executable, "-c", ""])),
    "fork": tried(os.fork),
    "signal": tried(lambda: os.kill(os.getppid(), 0)),
}))
""",
        *places,
    )
    assert set(outcomes.values()) == {"PermissionError"}, outcomes


def test_threads_that_start_later_are_shut_in_too(enforced, places):
    if "files" not in enforced or "system calls" not in enforced:
        pytest.skip("this kernel does not do both")
    outcomes = told(
        """
confine([given])
ends = []
def look():
    ends.append(tried((outside / "file.txt").read_text))
    ends.append(tried(socket.socket))
thread = threading.Thread(target=look)
thread.start()
thread.join()
print(json.dumps(ends))
""",
        *places,
    )
    assert outcomes == ["PermissionError", "PermissionError"]


def test_only_one_port_is_left_where_a_program_needs_it(enforced, places):
    if "network" not in enforced:
        pytest.skip("this kernel cannot tell ports apart")
    outcomes = told(
        """
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
confine([given], port)
def listen(number):
    with socket.socket() as one:
        one.bind(("127.0.0.1", number))
        one.listen()
print(json.dumps([
    tried(lambda: listen(port)), tried(lambda: listen(0)),
    tried(lambda: socket.create_connection(("127.0.0.1", 9))),
]))
""",
        *places,
    )
    assert outcomes == ["done", "PermissionError", "PermissionError"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="root has them")
def test_root_gives_up_what_only_root_may_do(enforced, places):
    if "capabilities" not in enforced:
        pytest.skip("this system has none")
    outcomes = told(
        """
confine([given])
status = Path("/proc/self/status").read_text()
print(json.dumps(int(status.split("CapEff:")[1].split()[0], 16)))
""",
        *places,
    )
    assert outcomes in (0, 1 << 2), "reading files of others is left, where root could"


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such limits")
def test_limits(places):
    outcomes = told(
        """
import resource
limit_resources(1 << 30, 1000)
def written():
    try:
        (given / "new.txt").write_text("x")
    except OSError as error:
        return error.strerror
kinds = (resource.RLIMIT_CORE, resource.RLIMIT_FSIZE, resource.RLIMIT_CPU)
print(json.dumps([[resource.getrlimit(kind)[1] for kind in kinds], written()]))
""",
        *places,
    )
    # A second more: SIGXCPU at the limit itself says what happened, SIGKILL beyond it does not.
    assert outcomes == [[0, 0, 1001], "File too large"]


@pytest.mark.skipif(not LINUX, reason="counts as Linux does")
def test_memory_beyond_the_limit_is_refused_and_files_do_not_count(places):
    (places[0] / "large").touch()
    os.truncate(places[0] / "large", 1 << 30)
    outcomes = told(
        """
import mmap
limit_resources(256 << 20, None)
with (given / "large").open("rb") as file:
    mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
ends = [len(mapped)]
try:
    bytearray(512 << 20)
except MemoryError:
    ends.append("refused")
ends.append(len(bytearray(16 << 20)))
print(json.dumps(ends))
""",
        *places,
    )
    assert outcomes == [1 << 30, "refused", 16 << 20]


@pytest.mark.skipif(platform.machine() != "x86_64" or not LINUX, reason="numbers of x86-64")
def test_the_other_way_to_make_system_calls_is_refused():
    """x32: the same calls under other numbers, which a list of numbers would miss."""
    from phiquant.host.confinement import FOREIGN_NUMBERS

    outcomes = told(
        f"""
import ctypes
confine([])
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall({FOREIGN_NUMBERS + 39})  # getpid, which is allowed by its own number
print(json.dumps([ctypes.get_errno(), os.getpid() > 0]))
""",
        Path(),
        Path(),
    )
    assert outcomes == [13, True]
