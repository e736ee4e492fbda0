"""The two records in an artifact's directory, `phiquant.json` and `README.md`, kept in step."""

from collections.abc import Mapping
from pathlib import Path

from phiquant.errors import ArtifactError, RequestError
from phiquant.evaluation.manifest import NAME, Manifest, read_manifest
from phiquant.evaluation.verification import Verification
from phiquant.host.staging import write_text
from phiquant.phi.front_matter import CARD
from phiquant.reporting.card import card


def write_records(directory: Path, manifest: Manifest, hashes: Mapping[str, str]) -> None:
    """Describe the finished artifact in `directory`, whose files `manifest` does not list yet.

    `hashes` are those that are known already; the other files are read for theirs.
    """
    manifest = manifest.with_files(directory, hashes)
    write_text(directory / CARD, card(directory, manifest))
    manifest.write(directory)


def record_verification(directory: Path, verification: Verification) -> bool:
    """Put the figures into the records of the artifact in `directory`, each whole or not at all.

    False, and nothing is written, for an artifact that phiquant did not make. Raises
    ArtifactError if its record is malformed.
    """
    manifest = read_manifest(directory) if directory.is_dir() else None
    if manifest is None:
        return False
    manifest = manifest.with_verification(verification.as_json())
    try:
        text = card(directory, manifest, verification)
    except (AttributeError, KeyError, RequestError, TypeError, ValueError) as error:
        raise ArtifactError(
            f"{directory / NAME} is no record that phiquant wrote "
            f"({type(error).__name__}: {error}); remove it"
        ) from error
    write_text(directory / CARD, text)
    manifest.write(directory)
    return True
