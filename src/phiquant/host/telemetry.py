"""Runtimes that report on their use over the network are kept from it.

OpenVINO's Python package sends an event to its makers whenever it is imported, and ONNX Runtime
keeps statistics to send. Neither belongs into a tool that people run on models of their own.
"""

import os
import sys


def no_telemetry() -> None:
    """Have libraries that are imported after this report nothing, from this process or its
    children.
    """
    # OpenVINO has a stub for where this package is not installed.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    for name in ("ORT_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK"):
        os.environ.setdefault(name, "1")
