"""A runtime in NumPy for tests of what is built on targets: exact, fast, and easy to break.

An artifact of the fake format is a directory with the file `weights.fake`; what it "holds" is an
object in memory, which a test breaks as it likes.
"""

from dataclasses import replace

import numpy as np

from phiquant.errors import ArtifactError
from phiquant.evaluation.rendering import render
from phiquant.phi.reference import Reference
from phiquant.planning.plan import Plan, PlanRow
from phiquant.targets.target import Generation, StoredEntry, Target, WriterMemory


class FakeArtifact:
    """Weights rounded to `steps` levels of a tensor's largest magnitude."""

    def __init__(self, path, checkpoint, steps=1 << 14, nbytes_per_weight=2):
        self.path = path
        self.type = f"fake-{steps}"
        self.architecture = checkpoint.architecture
        self.nbytes_per_weight = nbytes_per_weight
        self.extra = []
        self.weights = {}
        for weight in checkpoint.architecture.weights():
            values = checkpoint.weight(weight.name)
            step = np.abs(values).max() / steps
            self.weights[weight.name] = (np.round(values / step) * step).astype(np.float32)

    def entries(self):
        stored = [
            StoredEntry(name, values.shape, "FAKE", values.size * self.nbytes_per_weight)
            for name, values in self.weights.items()
        ]
        return (*stored, *self.extra)

    def weight(self, name, first=0, last=None):
        if name not in self.weights:
            raise ArtifactError(f"there is no tensor for {name}")
        values = self.weights[name]
        return values if values.ndim == 1 else values[first:last]


class FakeRunner:
    """The reference forward over the artifact's weights, with the tokenizer handed in."""

    runtime = "fake 1.0"
    slow = False

    def __init__(self, artifact, tokenizer, ends):
        self.artifact = artifact
        self.tokenizer = tokenizer
        self.ends = set(ends)
        self.forward = Reference(artifact)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    @property
    def chat_template(self):
        return self.tokenizer.special.chat_template

    def render(self, messages):
        return render(self.chat_template, messages, dict(self.tokenizer.special.named)).text

    def tokenize(self, text):
        return self.tokenizer.encode(text)

    def logits(self, tokens, last=None):
        return self.forward.logits(tokens)[-(last or len(tokens)) :]

    def generate(self, prompt, limit):
        new = []
        for _ in range(limit):
            token = int(self.logits(np.array([*prompt, *new], np.int32))[-1].argmax())
            if token in self.ends:
                return Generation(tuple(new), self.tokenizer.decode(new), True, 0.1)
            new.append(token)
        return Generation(tuple(new), self.tokenizer.decode(new), False, 0.1)

    def stops_at(self, token):
        return token in self.ends


def fake_target(artifact, runner):
    """A target whose only artifact is `artifact`, loaded as `runner` (or raising it)."""

    def load(path):
        if isinstance(runner, Exception):
            raise runner
        return runner

    def plan(architecture, survey, form):
        rows = tuple(
            PlanRow(w.name, w.name, w.role, w.layer, w.shape, "FAKE", 2 * int(np.prod(w.shape)), "")
            for w in architecture.weights()
        )
        return Plan("gguf", "fake", rows)

    return Target(
        name="gguf",  # a name of the table, so that cards can be written
        title="Fake",
        grids={},
        types={},
        defaults={},
        read=lambda request: None,
        plan=plan,
        choices=lambda row, form, survey: (),
        footprint=None,
        type_of=lambda rows: "fake",
        new_writer=None,
        writing=WriterMemory(fixed=0, a_token=0),
        recognises=lambda path: (path / "weights.fake").is_file(),
        open=lambda path: artifact,
        runner=load,
        library="fake",
        command=lambda path: "fake run .",
        prepare=lambda checkpoint: (),
    )


def with_rope(architecture, **changes):
    """The architecture with changes to its rotary embedding."""
    return replace(architecture, rope=replace(architecture.rope, **changes))
