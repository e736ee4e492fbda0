"""The fields by which clients list a model, as gguf's reader and llama.cpp itself find them."""

from dataclasses import replace
from math import prod

import pytest
from gguf_models import tiny_checkpoint, write_gguf

from llama_vocabulary import LlamaVocabulary
from phiquant.targets.gguf.authorship import general_fields, model_title

gguf = pytest.importorskip("gguf")

CARD = """\
---
license: mit
license_link: https://example.org/LICENSE
language: [en, "no", no]
tags:
  - nlp
  - code
pipeline_tag: text-generation
base_model: org/Base-7B
datasets: [some/data]
widget:
  - text: {a: b}
---
# A model
"""
ODD = (
    "---\n: : [\n---\n",
    "---\n[]\n---\n",
    "# none\n",
    "---\nname: {a: b}\ntags: 7\n---\n",
    "\xff",
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return tiny_checkpoint(tmp_path_factory.mktemp("models") / "Phi-4-mini-instruct")


def test_clients_find_name_size_and_licence(checkpoint, tmp_path):
    (checkpoint.directory / "README.md").write_text(CARD, encoding="utf-8")
    write_gguf(checkpoint, tmp_path / "out", precision="int8")
    (checkpoint.directory / "README.md").unlink()
    (file,) = (tmp_path / "out").glob("*.gguf")
    fields = {
        name.removeprefix("general."): field.contents()
        for name, field in gguf.GGUFReader(file).fields.items()
        if name.startswith("general.")
    }
    expected = {
        "name": "Phi 4 Mini Instruct",
        "basename": "Phi-4",
        "finetune": "instruct",
        "size_label": "mini",
        "license": "mit",
        "license_link": "https://example.org/LICENSE",
        "languages": ["en", "no"],
        "tags": ["nlp", "code", "text-generation"],
        "base_model.count": 1,
        "base_model.0.name": "Base 7B",
        "base_model.0.organization": "Org",
        "base_model.0.repo_url": "https://huggingface.co/org/Base-7B",
    }
    assert {name: fields.get(name) for name in expected} == expected
    with LlamaVocabulary(file) as llama:
        assert llama.meta("general.name") == "Phi 4 Mini Instruct"
        assert llama.meta("general.size_label") == "mini"


def test_a_size_is_counted_where_the_name_has_none(checkpoint):
    assert general_fields(replace(checkpoint, name="my_model"))["general.size_label"] == "127K"


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("Phi-3.5-mini-instruct", "Phi 3.5 Mini Instruct"),
        ("phi-4", "Phi 4"),
        ("my_own_model", "My Own Model"),
        ("a model with a name", "A Model With A Name"),
        ("---", "---"),
    ],
)
def test_names_are_for_people(checkpoint, name, title):
    assert model_title(replace(checkpoint, name=name)) == title


@pytest.mark.parametrize("card", ODD)
def test_a_card_of_another_kind_is_no_obstacle(checkpoint, card):
    path = checkpoint.directory / "README.md"
    path.write_bytes(card.encode("latin-1"))
    try:
        assert model_title(checkpoint) == "Phi 4 Mini Instruct"
        assert general_fields(checkpoint)["general.size_label"] == "mini"
    finally:
        path.unlink()


@pytest.mark.parametrize("name", ["Phi-4-mini-instruct", "Phi-3-mini-4k-instruct", "phi-4"])
def test_the_names_parts_are_those_of_llamas_converter(checkpoint, name, tmp_path):
    weights = sum(prod(weight.shape) for weight in checkpoint.architecture.weights())
    theirs = gguf.Metadata.load(model_path=tmp_path / name, total_params=weights)
    ours = general_fields(replace(checkpoint, name=name))
    for part in ("basename", "finetune", "version"):
        assert ours.get(f"general.{part}") == getattr(theirs, part)
    assert model_title(replace(checkpoint, name=name)) == theirs.name
