"""Things that leave a file behind when they are loaded or run, for tests that they are not."""

import shutil
import subprocess

import pytest

LIBRARY = """
#include <stdio.h>
__attribute__((constructor)) static void loaded(void) {
    FILE *file = fopen("%s", "w");
    if (file) fclose(file);
}
"""


class Sentinel:
    """Makes files that, once loaded or run, leave a mark."""

    def __init__(self, directory):
        self.mark = directory / "mark"

    @property
    def fired(self):
        return self.mark.exists()

    @property
    def statement(self):
        """Python that leaves the mark."""
        return f"open({str(self.mark)!r}, 'w').close()\n"

    def module(self, path):
        """A Python file."""
        path.write_text(self.statement)
        return path

    def library(self, path):
        """A shared library; the test is skipped where no compiler is."""
        compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
        if compiler is None:
            pytest.skip("no compiler to make a library with")
        source = path.with_suffix(".c")
        source.write_text(LIBRARY % self.mark)
        command = [compiler, "-shared", "-fPIC", "-o", str(path), str(source)]
        subprocess.run(command, check=True, capture_output=True)
        source.unlink()
        return path

    def __reduce__(self):
        """Pickled, it leaves the mark when it is read."""
        return exec, (self.statement,)
