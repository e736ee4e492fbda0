"""`phiquant verify`."""

from pathlib import Path

from phiquant.cli.console import out
from phiquant.cli.ending import Result, warn
from phiquant.cli.progress import shown
from phiquant.errors import ArtifactError, VerificationError
from phiquant.evaluation.settings import Settings
from phiquant.evaluation.text import read_text
from phiquant.evaluation.verification import verify
from phiquant.phi.opening import open_model
from phiquant.phi.source import locate
from phiquant.reporting.records import record_verification
from phiquant.reporting.verdict import verification_table


def settings(text: Path | None, max_kl: float | None, windows: int, boundary: bool) -> Settings:
    """What is measured, from the words of the command line."""
    return Settings(
        text=None if text is None else read_text(text),
        windows=windows or None,
        max_kl=max_kl,
        boundary=boundary,
    )


def verify_command(
    artifact: Path, against: str, adapter: str | None, settings: Settings, progress: bool
) -> Result:
    """Verify one artifact, put the figures into its records, and end in the verdict."""
    checkpoint = open_model(locate(against), adapter)
    with shown(progress) as on_progress:
        verification = verify(artifact, checkpoint, settings, on_progress)
    try:
        record_verification(artifact, verification)
    except (ArtifactError, OSError) as error:
        # The medium cannot be written, or the record is not ours; the figures stand.
        warn(f"the figures are not recorded in {artifact}: {error}")
    failure = (
        None
        if verification.passed
        else VerificationError(f"{artifact} failed verification: {verification.reasons[0]}")
    )
    return Result(verification.as_json(), lambda: out(verification_table(verification)), failure)
