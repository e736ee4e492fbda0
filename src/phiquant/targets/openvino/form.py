"""What a device asks of an artifact, and the share of weights that a request keeps at 4 bits.

CPU and GPU run every type. The NPU's compiler takes symmetric weights in groups of 128 or per
channel only. The hints are properties that the plugins take from the model's `rt_info` when it is
compiled, unless the application sets them itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from phiquant.errors import RequestError
from phiquant.planning.precision import Precision
from phiquant.targets.form import Request
from phiquant.targets.openvino.formats import (
    CHOICE,
    DEFAULTS,
    TYPES,
    Compressed,
    compressed_type,
)

DEVICES = ("CPU", "GPU", "NPU")
OPTIONS: Mapping[str, str] = {
    "ov_device": "the device to make the artifact for: CPU, GPU or NPU. Default: CPU",
    "ratio": "int4: the share of the layers' weights that gets 4 bits, 0 to 1; the most "
    "sensitive layers get the backup, 8 bits per channel. Default: 1",
}
NPU_DEFAULTS: Mapping[Precision, str] = {"int4": "int4-sym-g128", "int8": "int8-sym-channel"}


@dataclass(frozen=True, slots=True)
class OpenVinoForm:
    """The type, the device, and the share of the layers' weights with the type's own bits."""

    type: str
    device: str
    ratio: float
    context: int | None
    """Tokens that the artifact is to serve; it must be no more than the model is made for."""

    @property
    def given(self) -> Mapping[str, str]:
        """The options that are not at their defaults."""
        words = {"ov_device": (self.device, DEVICES[0]), "ratio": (f"{self.ratio:g}", "1")}
        return {name: word for name, (word, usual) in words.items() if word != usual}

    @property
    def divides(self) -> bool:
        """Whether a ratio divides the layers between 4 and 8 bits."""
        return self.ratio != 1

    @property
    def kind(self) -> Compressed | None:
        """Bits, mode and group; None for floats."""
        return compressed_type(self.type)

    @property
    def backup(self) -> Compressed:
        """What embedding, head and the most sensitive layers get."""
        return Compressed(8, self.device == "NPU", 0)

    @property
    def hints(self) -> Mapping[str, str]:
        """Runtime options for the model's `rt_info`.

        Weights of 32 or 16 bits keep the cache at 16 bits and have no activations rounded. A cache
        of "f16" is bfloat16 where the CPU plugin computes in that; "f32" there would not load with
        paged attention, so an FP32 cache is the application's to ask for (see `running`). For
        compressed weights these are the plugin's own defaults, said aloud.
        """
        scale = {"ACTIVATIONS_SCALE_FACTOR": "8.0"}  # keeps FP16 activations on a GPU finite
        whole = {"KV_CACHE_PRECISION": "f16", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}
        if self.type == "fp32":
            return whole
        if self.type == "fp16":
            return scale | whole
        if self.device == "NPU":
            return scale
        return scale | {"KV_CACHE_PRECISION": "u8", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "32"}


def read_form(request: Request) -> OpenVinoForm:
    """The form that is asked for; RequestError for what OpenVINO or the device does not have."""
    device = request.choice("ov_device", DEVICES, DEVICES[0])
    defaults = {**DEFAULTS, **NPU_DEFAULTS} if device == "NPU" else DEFAULTS
    name = request.type_among(TYPES, defaults, "OpenVINO", CHOICE)
    kind = compressed_type(name)
    if device == "NPU" and (kind is None or not kind.symmetric or kind.group not in (0, 128)):
        raise RequestError(
            f"an NPU takes symmetric weights in groups of 128 or per channel only, and {name} is "
            "not that; choose `type` int4-sym-g128, int4-sym-channel, int8-sym-g128 or "
            "int8-sym-channel"
        )
    ratio = request.share("ratio", 1.0)
    if ratio != 1 and (kind is None or kind.bits != 4):
        raise RequestError(
            f"`ratio` divides layers between 4 and 8 bits; it needs an int4 type, found {name}"
        )
    return OpenVinoForm(name, device, ratio, request.context)
