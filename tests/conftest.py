"""What holds for the whole run of the tests."""

import sys


def pytest_unconfigure(config):
    """Close what llama-cpp-python leaves open, so that pytest's own summary is the last word."""
    module = sys.modules.get("llama_cpp._utils")
    for name in ("outnull_file", "errnull_file"):
        file = getattr(module, name, None)
        if file is not None:
            file.close()
