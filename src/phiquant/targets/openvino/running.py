"""How an artifact is run: on the device it was made for, with the properties that it needs.

Cache and dynamic quantization are hints in the model's `rt_info`, which the CPU plugin follows
(see `profiles`). The precision that it computes in cannot be hinted there: the plugin reads it from
the application's properties only, and takes bfloat16 where the processor has it. So an FP32
artifact is run with two properties, the precision and a cache to match; without them it runs too,
in bfloat16 on such a processor.
"""

from collections.abc import Mapping
from pathlib import Path

from phiquant.targets.openvino.form import DEVICES
from phiquant.targets.openvino.xml_reader import MODEL, read_rt_info

MAKER = "phiquant"
"""The section of the model's `rt_info` with the "type" and the "device" that were asked for."""
SINGLE_PRECISION: Mapping[str, str] = {
    "INFERENCE_PRECISION_HINT": "f32",
    "KV_CACHE_PRECISION": "f32",
}
"""Properties with which the CPU plugin computes in FP32, cached keys and values included."""


def properties(path: Path) -> Mapping[str, str]:
    """What to give to OpenVINO's CPU plugin with the artifact in the directory `path`.

    Nothing for an artifact by another tool, which is run as it comes.
    """
    return SINGLE_PRECISION if _made_as(path).get("type") == "fp32" else {}


def command(path: Path) -> str:
    """The line that runs the artifact in `path` on the device it was made for, typed there."""
    device = _made_as(path).get("device", DEVICES[0])
    if device not in DEVICES:  # whatever a stranger wrote there is not to be typed
        device = DEVICES[0]
    given = properties(path) if device == "CPU" else {}
    words = ["'.'", f"'{device}'", *(f"{name}='{value}'" for name, value in given.items())]
    return (
        'python -c "import openvino_genai as g; '
        f"print(g.LLMPipeline({', '.join(words)})"
        ".generate('Why is the sky blue?', max_new_tokens=200))\""
    )


def _made_as(path: Path) -> Mapping[str, str]:
    return read_rt_info(path / MODEL, MAKER)
