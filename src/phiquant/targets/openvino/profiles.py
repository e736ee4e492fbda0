"""What a device asks of an artifact, and the share of weights that a request keeps at 4 bits.

CPU and GPU run every type. The NPU's compiler takes symmetric weights in groups of 128 or per
channel only. The hints are properties that the plugins take from the model's `rt_info` when it is
compiled, unless the application sets them itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from phiquant.errors import RequestError
from phiquant.recipe import Recipe
from phiquant.targets.openvino.formats import CHOICE, DEFAULTS, TYPES, Compressed, compressed_type
from phiquant.targets.requested import requested_type

DEVICES = ("CPU", "GPU", "NPU")
OPTIONS: Mapping[str, str] = {
    "ov_device": "the device to make the artifact for: CPU, GPU or NPU. Default: CPU",
    "ratio": "int4: the share of the layers' weights that gets 4 bits, 0 to 1; the most "
    "sensitive layers get the backup, 8 bits per channel. Default: 1",
}
NPU_DEFAULTS: Mapping[str, str] = {"int4": "int4-sym-g128", "int8": "int8-sym-channel"}


@dataclass(frozen=True, slots=True)
class Profile:
    """A request, checked: the type, the device, the share of weights with the type's own bits."""

    type: str
    device: str
    ratio: float

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

        Weights of 32 or 16 bits keep the cache at their own precision and have no activations
        rounded. For compressed ones these are the CPU plugin's own defaults, said aloud.
        """
        scale = {"ACTIVATIONS_SCALE_FACTOR": "8.0"}  # keeps FP16 activations on a GPU finite
        if self.type == "fp32":
            return {"KV_CACHE_PRECISION": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}
        if self.type == "fp16":
            return scale | {"KV_CACHE_PRECISION": "f16", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}
        if self.device == "NPU":
            return scale
        return scale | {"KV_CACHE_PRECISION": "u8", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "32"}


def profile(recipe: Recipe) -> Profile:
    """What `recipe` asks for; RequestError for what cannot be."""
    device = recipe.option("ov_device", "CPU").upper()
    if device not in DEVICES:
        raise RequestError(f"expected a device among {', '.join(DEVICES)}, found {device!r}")
    name = requested_type(recipe, TYPES, DEFAULTS, "OpenVINO", CHOICE)
    if device == "NPU" and recipe.type is None:
        name = NPU_DEFAULTS.get(recipe.precision, name)
    kind = compressed_type(name)
    if device == "NPU" and (kind is None or not kind.symmetric or kind.group not in (0, 128)):
        raise RequestError(
            f"an NPU takes symmetric weights in groups of 128 or per channel only, and {name} is "
            "not that; choose int4-sym-g128, int4-sym-channel, int8-sym-g128 or int8-sym-channel"
        )
    return Profile(name, device, _ratio(recipe, kind))


def _ratio(recipe: Recipe, kind: Compressed | None) -> float:
    word = recipe.option("ratio", "1")
    try:
        ratio = float(word)
    except ValueError:
        ratio = -1.0
    if not 0 <= ratio <= 1:
        raise RequestError(f"expected a ratio from 0 to 1, found {word!r}")
    if ratio != 1 and (kind is None or kind.bits != 4):
        raise RequestError("a ratio divides layers between 4 and 8 bits; it needs an int4 type")
    return ratio
