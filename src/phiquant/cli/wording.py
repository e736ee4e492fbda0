"""What the fields of the library are called on the command line.

Messages of the library name its fields between backquotes, alone or with a value:
`bits_per_weight`, `precision=fp16`, `embedding=8`. Here they become the options that a person typed
or could type: --bits-per-weight, --precision fp16, --option embedding=8. A word between backquotes
that is none of these stays as it is.
"""

import re
from collections.abc import Mapping

OPTIONS: Mapping[str, str] = {
    "accuracy_level": "--accuracy-level",
    "adapter": "--adapter",
    "bits_per_weight": "--bits-per-weight",
    "boundary": "--boundary",
    "context": "--context",
    "device": "--device",
    "embedding": "--option embedding",
    "imatrix.read": "--imatrix",
    "imatrix.write": "--imatrix-out",
    "last_logits": "--option last_logits",
    "length": "--calibration-size",
    "max_bytes": "--max-size",
    "max_kl": "--max-kl",
    "max_loss": "--min-quality",
    "measured": "--measured",
    "min_precision": "--min-quality",
    "min_speed": "--min-speed",
    "output": "-o",
    "ov_device": "--ov-device",
    "precision": "--precision",
    "prompt": "--prompt",
    "provider": "--provider",
    "qdq": "--qdq",
    "quality": "--quality",
    "ratio": "--ratio",
    "rescaling": "--no-rescaling",
    "revision": "--revision",
    "sequences": "--calibration-size",
    "target": "--to",
    "targets": "--to",
    "text.path": "--calibration",
    "type": "--type",
    "windows": "--windows",
}
"""Field → option; a dot leads into the value of a parameter (`text=CalibrationText(path=…)`)."""

_FIELD = re.compile(r"`([a-z_.]+)(?:=([^`]*))?`")


def in_options(message: str) -> str:
    """The message with fields as options: `precision=fp16` is --precision fp16."""

    def option(field: re.Match[str]) -> str:
        name, value = field[1], field[2]
        if name not in OPTIONS:
            return field[0]
        typed = OPTIONS[name]
        if value is None:
            return typed
        return f"{typed}{'=' if ' ' in typed else ' '}{value}"

    return _FIELD.sub(option, message)
