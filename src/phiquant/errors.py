"""Everything that phiquant raises on purpose.

    PhiquantError
    ├── RequestError            the request itself cannot be carried out as asked
    │   ├── DestinationError    the destination exists or cannot be written
    │   └── MissingDependency   an optional runtime is not installed
    ├── InputError              something that was handed in is not what it claims to be
    │   ├── ConfigError         a model's configuration: a field missing, or out of range
    │   ├── CheckpointError     tensors missing, extra, misshaped, non-finite; broken files
    │   ├── TokenizerError      a vocabulary that the target's runtime cannot represent
    │   └── ArtifactError       an artifact that is not what its format promises
    ├── VerificationError       an artifact was measured and found wanting
    └── ResourceError           not enough memory or disk

A message is one sentence or a few: what was expected, what was found, what to do.
"""


class PhiquantError(Exception):
    """The root of the tree; catch it to catch all that phiquant raises on purpose."""


class RequestError(PhiquantError):
    """The request cannot be carried out as asked."""


class DestinationError(RequestError):
    """The destination exists already or cannot be written."""


class MissingDependency(RequestError):  # noqa: N818 (it names what is missing)
    """An optional package is needed; the message holds the install line."""

    def __init__(self, package: str, purpose: str) -> None:
        """`package` is what pip takes: a name, with extras in brackets where it needs them."""
        super().__init__(
            f"{purpose} needs the package {package}, which is not installed; "
            f'install it with: pip install "{package}"'
        )


class InputError(PhiquantError):
    """Something that was handed in is not what it claims to be."""


class ConfigError(InputError):
    """A field of the model's configuration is missing, malformed or unsupported."""


class CheckpointError(InputError):
    """The tensors of a checkpoint are not what its configuration promises."""


class TokenizerError(InputError):
    """The tokenizer's files are missing, or the target's runtime cannot represent them."""


class ArtifactError(InputError):
    """An artifact is not what its format promises."""


class VerificationError(PhiquantError):
    """An artifact was measured and found wanting."""


class ResourceError(PhiquantError):
    """Not enough memory or disk for the request."""
