"""Run a command with a limit of processor time, and tell the memory that it took.

    python limited.py SECONDS FILE COMMAND...

FILE gets the most bytes that the command had in memory. It ends as the command does. Linux starts
that count with the memory of the process that starts a command, so this one has to be small.
"""

import os
import resource
import sys
from pathlib import Path


def main():
    seconds, report, *command = sys.argv[1:]
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_CPU, (int(seconds), int(seconds)))
        os.execv(command[0], command)
    _, status, usage = os.wait4(child, 0)
    Path(report).write_text(str(usage.ru_maxrss << 10))
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(main())
