"""What holds for the whole run of the tests."""

import os
import sys

# llama.cpp's threads wait for each other in a loop that asks again and again. With other work on
# the same cores, that takes the time from the thread that they wait for; here they sleep instead.
# OpenMP reads this once, when it is loaded, in this process and in those that tests start.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def pytest_unconfigure(config):
    """Close what llama-cpp-python leaves open, so that pytest's own summary is the last word."""
    module = sys.modules.get("llama_cpp._utils")
    for name in ("outnull_file", "errnull_file"):
        file = getattr(module, name, None)
        if file is not None:
            file.close()
