"""A model by its page's address, by a path into the hub's cache, by a file: address.

The hub is out of reach here; its cache, made by hand, stands in.
"""

import json

import pytest

from command_line import assert_refused, call, tiny_model

COMMIT = "0123456789abcdef0123456789abcdef01234567"
PAGE = "https://huggingface.co/example/tiny-phi"


@pytest.fixture
def snapshot(tmp_path, monkeypatch):
    """The only state of example/tiny-phi, in a cache of its own."""
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    home = tmp_path / "cache" / "models--example--tiny-phi"
    directory = tiny_model(home / "snapshots" / COMMIT)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text(COMMIT)
    return directory


def test_every_name_plans_the_same(snapshot):
    words = ["example/tiny-phi", PAGE, f"{PAGE}/tree/main", str(snapshot), snapshot.as_uri()]
    plans = [call("plan", word, "--json", "-q") for word in words]
    assert [ended.code for ended in plans] == [0] * len(words), plans
    documents = [json.loads(ended.out) for ended in plans]
    assert {document["model"] for document in documents} == {"tiny-phi"}
    assert all(document["plans"] == documents[0]["plans"] for document in documents)


@pytest.mark.parametrize("by", ["path", "address"])
def test_artifacts_from_the_cache_are_called_after_the_model(snapshot, tmp_path, by):
    word = snapshot if by == "path" else PAGE
    ended = call("quantize", word, "--to", "gguf", "-o", tmp_path / "out", "-q")
    assert ended.code == 0, ended.err
    (file,) = (tmp_path / "out").glob("*.gguf")
    assert file.name == "tiny-phi-Q4_K_M.gguf"
    source = json.loads((tmp_path / "out" / "phiquant.json").read_text())["source"]
    told = (source["name"], source["hub_id"], source["revision"])
    assert told == ("tiny-phi", "example/tiny-phi", COMMIT)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "# tiny-phi Q4_K_M" in card and f"--revision {COMMIT}" in card
    assert COMMIT not in card.replace(f"--revision {COMMIT}", "").replace(f"revision {COMMIT}", "")


def test_recommend_and_inspect(snapshot):
    for word in (PAGE, snapshot, snapshot.as_uri()):
        recommended = call("recommend", word, "--device", "raspberry-pi-5-8gb", "--json")
        assert recommended.code == 0, recommended.err
        assert json.loads(recommended.out)["model"] == "tiny-phi"
        inspected = call("inspect", word, "--json")
        assert inspected.code == 0, inspected.err
        assert json.loads(inspected.out)["format"] == "checkpoint"


def test_a_published_model_by_its_address():
    """Its dimensions are in a table: nothing is fetched."""
    words = ("Phi-4-mini-instruct", "https://huggingface.co/microsoft/Phi-4-mini-instruct")
    ended = [call("recommend", word, "--device", "raspberry-pi-5-8gb", "--json") for word in words]
    assert [one.code for one in ended] == [0, 0]
    assert ended[0].out == ended[1].out


def test_addresses_that_name_no_model(snapshot, tmp_path):
    for word, told in (
        (f"{PAGE}/blob/main/config.json", "the address of a model's page"),
        ("https://huggingface.co/datasets/example/tiny-phi", "the address of a model's page"),
        ("https://example.org/example/tiny-phi", "an address of huggingface.co"),
        ((tmp_path / "absent").as_uri(), "none at file://"),
    ):
        assert_refused(call("plan", word, "-q"), 2, told, word)
    absent = call("plan", f"{PAGE}/tree/v9", "-q")
    assert_refused(absent, 2, "example/tiny-phi at v9 is not in the local cache")


def test_a_revision_that_contradicts(snapshot):
    conflict = call("plan", f"{PAGE}/tree/main", "--revision", "v1", "-q")
    assert_refused(conflict, 2, "'main'", "'v1'")
    assert_refused(
        call("plan", tiny_model(snapshot.parent / "here"), "--revision", "v1"), 2, "'v1'"
    )
    assert call("plan", f"{PAGE}/tree/main", "--revision", "main", "-q").code == 0


def test_verify_against_an_address(snapshot, tmp_path):
    pytest.importorskip("onnxruntime_genai")
    out = tmp_path / "out"
    made = call("quantize", PAGE, "--to", "onnx", "--precision", "fp32", "-o", out, "-q")
    assert made.code == 0, made.err
    ended = call("verify", out, "--against", f"{PAGE}/tree/main", "--windows", 1, "--json", "-q")
    assert ended.code == 0, ended.err
    assert json.loads(ended.out)["against"] == "tiny-phi"
