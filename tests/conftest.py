"""What holds for the whole run of the tests."""

import gc
import os
import signal
import sys
from types import SimpleNamespace

# A BLAS library that splits small products over cores waits actively for all of them: on a machine
# that is busy, or runs several tests at a time, that takes twenty times the arithmetic. The
# variable is for a numpy that is not loaded yet, here or in the commands that tests start.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# llama.cpp's threads wait for each other in a loop that asks again and again. With other work on
# the same cores, that takes the time from the thread that they wait for; here they sleep instead.
# OpenMP reads this once, when it is loaded, in this process and in those that tests start.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# A shell that starts the tests behind `&` has Ctrl-C ignored, and so would every command that they
# start; a handler is not handed on.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import hypothesis
import numpy as np  # noqa: F401 (loads the BLAS library)
import pytest
from threadpoolctl import threadpool_limits

import phiquant.targets.gguf.runner as gguf_runner
import phiquant.targets.onnx.runner as onnx_runner
from phiquant.phi.tokenizer.tokenizer import Tokenizer

threadpool_limits(1, user_api="blas")

# A failure stays until it is mended, whoever runs the tests, and no time is limited.
hypothesis.settings.register_profile("new-examples", deadline=None, database=None)
hypothesis.settings.register_profile(
    "same-examples", hypothesis.settings.get_profile("new-examples"), derandomize=True
)
hypothesis.settings.load_profile("same-examples")


@pytest.fixture(scope="session", autouse=True)
def runtimes_use_one_thread():
    """Those whose threads wait for each other actively: llama.cpp's then take five times as long.

    Commands that tests start use as many threads as users' do.
    """

    def session(onnxruntime, path):
        def options():
            made = onnxruntime.SessionOptions()
            made.intra_op_num_threads = 1
            return made

        names = {name: getattr(onnxruntime, name) for name in ("InferenceSession", "__version__")}
        return open_session(SimpleNamespace(SessionOptions=options, **names), path)

    open_session = onnx_runner._session
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnx_runner, "_session", session)
        patch.setattr(gguf_runner, "cores", lambda: 1)
        yield


def pytest_collection_finish(session):
    """Spare the search for garbage what is there before the first test, and stays to the end."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def nothing_is_left_open():
    """A file that is left open fails where it was opened, and not in whatever test comes next."""
    yield
    gc.collect()


LONG = 10_000
"""Characters of a text that is worth remembering."""


@pytest.fixture(scope="session", autouse=True)
def long_texts_are_encoded_once():
    """The shipped text takes a second to tokenize, and most tests that calibrate do so on it."""
    encode, known = Tokenizer.encode, {}

    def remembering(self, text):
        if len(text) < LONG:
            return encode(self, text)
        if "hash for tests" not in vars(self):
            vars(self)["hash for tests"] = hash(self.document)
        key = vars(self)["hash for tests"], hash(text)
        if key not in known:
            known[key] = tuple(encode(self, text))
        return list(known[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tokenizer, "encode", remembering)
        yield


def pytest_unconfigure(config):
    """Close what llama-cpp-python leaves open, so that pytest's own summary is the last word."""
    module = sys.modules.get("llama_cpp._utils")
    for name in ("outnull_file", "errnull_file"):
        file = getattr(module, name, None)
        if file is not None:
            file.close()
