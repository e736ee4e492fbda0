"""The records of an artifact: written, read back, updated, and refused when malformed."""

import json
from pathlib import Path

import pytest
from rich.console import Console

from fake_runtime import FakeArtifact, FakeRunner, fake_target
from phiquant.errors import ArtifactError
from phiquant.evaluation import inspection, opening
from phiquant.evaluation.bootstrap import Estimate
from phiquant.evaluation.inspection import inspect
from phiquant.evaluation.manifest import Manifest, license_of, read_manifest
from phiquant.evaluation.settings import Settings
from phiquant.evaluation.truth import ReferenceFigures
from phiquant.evaluation.verification import verify
from phiquant.phi.source import Source
from phiquant.phi.survey import Survey
from phiquant.recipe import Recipe
from phiquant.reporting import card
from phiquant.reporting.records import record_verification, write_records
from phiquant.reporting.table import inspection_table, plan_table
from phiquant.reporting.units import estimate, size
from phiquant.reporting.verdict import verification_table
from tiny_models import write_tiny_checkpoint
from tiny_tokenizer import write_tiny_tokenizer

SETTINGS = Settings(window=32, windows=4, answer=2)


class Made:
    """An artifact of the fake format, with its records."""

    def __init__(self, directory, monkeypatch):
        tiny = write_tiny_tokenizer(directory / "model")
        ends = {"bos_token_id": tiny.bos, "eos_token_id": [tiny.end, tiny.eos]}
        write_tiny_checkpoint(directory / "model", **ends)
        (directory / "model" / "README.md").write_text("---\nlicense: mit\ntags: [a]\n---\n# M\n")
        self.truth = ReferenceFigures.measure(directory / "model", SETTINGS)
        self.path = directory / "artifact"
        self.path.mkdir()
        (self.path / "weights.fake").write_bytes(b"weights")
        artifact = FakeArtifact(self.path, self.truth.checkpoint)
        runner = FakeRunner(artifact, self.truth.tokenizer, (tiny.eos, tiny.end))
        target = fake_target(artifact, runner)
        monkeypatch.setattr(opening, "targets", lambda: (target,))
        monkeypatch.setattr(inspection, "targets", lambda: (target,))
        monkeypatch.setattr(card, "target", lambda name: target)
        recipe = Recipe("gguf", "int4")
        self.plan = target.plan(self.truth.checkpoint.architecture, Survey({}), recipe.form)
        source = Source(directory / "model", "model", "someone/Phi-4-mini", "abc123")
        hashes = {"model.safetensors": "00ff"}
        write_records(self.path, Manifest.describe(source, hashes, recipe, self.plan), {})

    @property
    def card(self):
        return (self.path / "README.md").read_text(encoding="utf-8")

    @property
    def document(self):
        return json.loads((self.path / "phiquant.json").read_text(encoding="utf-8"))

    def verify(self):
        return verify(self.path, self.truth, SETTINGS)


@pytest.fixture
def made(tmp_path, monkeypatch):
    return Made(tmp_path, monkeypatch)


def shown(renderable):
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    with console.file:
        console.print(renderable)
        return console.export_text()


def test_the_record_says_where_it_came_from(made):
    document = made.document
    assert document["schema"] == 1
    assert document["source"]["hub_id"] == "someone/Phi-4-mini"
    assert document["source"]["files"] == {"model.safetensors": "00ff"}
    assert document["source"]["license"] == "mit"
    assert document["recipe"]["precision"] == "int4"
    assert len(document["plan"]["rows"]) == 15
    assert list(document["files"]) == ["weights.fake"]
    assert document["verification"] is None


def test_the_card_can_be_published(made):
    head, _, body = made.card.removeprefix("---\n").partition("\n---\n")
    assert 'base_model: "someone/Phi-4-mini"' in head
    assert 'license: "mit"' in head
    assert "library_name: fake" in head
    assert body.startswith("\n# model fake for Fake\n")
    assert "```sh\nfake run .\n```" in body
    assert "Not measured yet" in body
    assert "phiquant quantize someone/Phi-4-mini --revision abc123 --to gguf" in body


def test_verification_fills_both(made):
    verification = made.verify()
    assert verification.passed, verification.reasons
    assert record_verification(made.path, verification)
    recorded = made.document["verification"]
    assert recorded["figures"]["mean"]["value"] == verification.figures.mean.value
    assert recorded["text"]["sha256"] == verification.sample.sha256
    assert "Not measured yet" not in made.card
    assert estimate(verification.figures.mean) in made.card
    assert "Measured in fake 1.0" in made.card
    assert sorted(path.name for path in made.path.iterdir()) == [
        "README.md",
        "phiquant.json",
        "weights.fake",
    ]


def test_a_failed_verification_is_recorded_as_such(made):
    (made.path / "weights.fake").write_bytes(b"tampered")
    verification = made.verify()
    record_verification(made.path, verification)
    assert made.document["verification"]["passed"] is False
    assert "**failed**" in made.card
    assert "changed since they were written: weights.fake" in made.card


def test_an_artifact_by_another_tool_is_left_alone(made):
    (made.path / "phiquant.json").unlink()
    before = made.card
    assert record_verification(made.path, made.verify()) is False
    assert made.card == before
    assert not (made.path / "phiquant.json").exists()


@pytest.mark.parametrize("content", ["", "{", "[]", "3", "[" * 100_000])
def test_what_is_no_json_object_is_refused(made, content):
    (made.path / "phiquant.json").write_text(content)
    with pytest.raises(ArtifactError, match=r"phiquant\.json"):
        read_manifest(made.path)


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 2},
        {"hash": "MD5"},
        {"made": None},
        {"source": []},
        {"recipe": "int4"},
        {"plan": {"rows": 3}},
        {"files": []},
        {"files": {"../x": "0"}},
        {"files": {"weights.fake": 0}},
        {"verification": 7},
    ],
)
def test_a_malformed_record_is_one_sentence(made, change):
    assert read_manifest(made.path) is not None
    (made.path / "phiquant.json").write_text(json.dumps(made.document | change))
    with pytest.raises(ArtifactError, match=next(iter(change))):
        read_manifest(made.path)
    with pytest.raises(ArtifactError, match="remove it"):
        record_verification(made.path, None)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("---\nlicense: apache-2.0\n---\n", "apache-2.0"),
        ("---\nlicense:\n---\n", None),
        ("no front matter\nlicense: mit\n", None),
        ("---\nname: x\n---\nlicense: mit\n", None),
    ],
)
def test_the_licence_is_read_from_the_front_matter_only(tmp_path, content, expected):
    (tmp_path / "README.md").write_text(content)
    assert license_of(tmp_path) == expected


def test_inspection_of_artifact_and_checkpoint(made):
    record_verification(made.path, made.verify())
    inspection = inspect(made.path)
    assert inspection.format == "Fake" and inspection.type == "fake-16384"
    assert inspection.bits_per_weight == 16
    assert [share.tensors for share in inspection.histogram] == [15]
    text = shown(inspection_table(inspection, tensors=True))
    assert "model.layers.1.mlp.down_proj.weight" in text
    assert "someone/Phi-4-mini" in text and "passed; mean KL divergence" in text
    json.dumps(inspection.as_json(), allow_nan=False)
    checkpoint = inspect(made.path.parent / "model")
    assert checkpoint.format == "checkpoint" and checkpoint.type == "BF16"
    assert checkpoint.record is None
    assert "BF16" in shown(inspection_table(checkpoint))


def test_inspection_of_nothing_known(made, tmp_path):
    with pytest.raises(ArtifactError, match="neither a checkpoint"):
        inspect(Path(__file__))


def test_tables_show_the_figures(made):
    verification = made.verify()
    text = shown(verification_table(verification))
    assert "PASSED" in text and estimate(verification.figures.mean) in text
    plan = shown(plan_table(made.plan))
    assert "gate up" in plan and size(made.plan.nbytes) in plan


@pytest.mark.parametrize(
    ("value", "error", "expected"),
    [
        (0.03123, 0.00112, "0.0312 ± 0.0011"),
        (1.2e-7, 3.3e-9, "1.200e-07 ± 3.3e-09"),
        (19.234567, 1.3, "19.2 ± 1.3"),
        (1234.5, 230.0, "1234 ± 230"),
        (5.3, float("nan"), "5.300"),
        (float("inf"), 1.0, "not finite"),
        (float("nan"), 1.0, "not finite"),
        (0.0, 0.0, "0"),
    ],
)
def test_figures_and_errors_end_at_the_same_place(value, error, expected):
    assert estimate(Estimate(value, error)) == expected


def test_sizes_are_decimal():
    assert [size(12), size(1500), size(89.14e6), size(7.67e9)] == [
        "12 bytes",
        "1.5 kB",
        "89.1 MB",
        "7.7 GB",
    ]
