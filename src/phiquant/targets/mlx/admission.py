"""What an MLX artifact may ask of mlx_lm and of transformers, which reads its tokenizer.

mlx_lm runs the Python file that `model_file` in config.json names, if it is told that it may (older
versions ask nobody), and imports a module of its own by `model_type`. transformers runs what
`auto_map` names, if it is told that it may. It is told not to, and then takes its own class: so
that an `auto_map`, which many published models have, does no harm.
The rest of config.json is the network's description, which both only look up.
Source: utils.py and tokenizer_utils.py of mlx_lm 0.32, tokenization_auto.py of transformers 5.23.
"""

from pathlib import Path

from phiquant.errors import ArtifactError
from phiquant.targets.admission import matching, read_settings
from phiquant.targets.tokenizer_settings import CLASSES, check_tokenizer_settings

CONFIG = "config.json"
TRUST = "trust_remote_code"
NAME = matching(r"\w+")
"""Of a module; with a dot it would be one in another place."""


def check_artifact(directory: Path) -> None:
    """Raise ArtifactError for anything that the libraries must not be given."""
    config = read_settings(directory / CONFIG)
    if config.get("model_file") is not None:
        raise ArtifactError(
            f"{CONFIG} has mlx_lm run code that comes with the artifact (model_file), which is "
            "never done here"
        )
    if not NAME(config.get("model_type")):
        raise ArtifactError(f"model_type in {CONFIG} is no name: {config.get('model_type')!r:.60}")
    if config.get("tokenizer_class") not in (*CLASSES, None):
        raise ArtifactError(
            f"tokenizer_class in {CONFIG} has the value {config['tokenizer_class']!r:.60}, which "
            "is none of those that are known to be safe; mlx_lm is not given the artifact"
        )
    check_tokenizer_settings(directory)
