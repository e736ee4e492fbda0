"""Every way of naming a model, and every way of not doing so. Nothing here asks the hub."""

from pathlib import Path

import pytest

from phiquant.errors import InputError, RequestError
from phiquant.phi.model_name import name_directory, read_model_name
from phiquant.phi.published import published, published_id

PHI = "microsoft/Phi-4-mini-instruct"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    "word",
    [
        PHI,
        f"{PHI}/",
        f"https://huggingface.co/{PHI}",
        f"https://huggingface.co/{PHI}/",
        f"https://huggingface.co/{PHI}?library=transformers#usage",
        f"https://www.huggingface.co/{PHI}",
        f"HTTPS://HuggingFace.co/{PHI}",
        f"http://hf.co/{PHI}",
        f"huggingface.co/{PHI}",
        f"hf.co/{PHI}/",
        f"hf://{PHI}",
        Path(f"https://huggingface.co/{PHI}"),  # which has one slash after "https:"
        "Phi-4-mini-instruct",
        "phi-4-MINI-instruct",
    ],
)
def test_a_model_on_the_hub(word):
    name = read_model_name(word)
    assert (name.hub_id, name.name) == (PHI, "Phi-4-mini-instruct")
    assert (name.directory, name.revision) == (None, None)
    assert read_model_name(word, "v1").revision == "v1"


@pytest.mark.parametrize(
    "word, revision",
    [
        (f"https://huggingface.co/{PHI}/tree/main", "main"),
        (f"https://huggingface.co/{PHI}/tree/{COMMIT}/", COMMIT),
        (f"https://huggingface.co/{PHI}/commit/{COMMIT}", COMMIT),
        (f"https://huggingface.co/{PHI}/tree/refs%2Fpr%2F3", "refs/pr/3"),
        (f"https://huggingface.co/{PHI}/tree/refs/pr/3", "refs/pr/3"),
        (f"hf.co/{PHI}/tree/a%20branch?x=1", "a branch"),
        (f"hf://{PHI}@v1", "v1"),
    ],
)
def test_a_revision_in_the_address(word, revision):
    name = read_model_name(word)
    assert (name.hub_id, name.revision) == (PHI, revision)
    assert read_model_name(word, revision) == name
    with pytest.raises(RequestError, match=r"names the revision .* and the request .*'other'"):
        read_model_name(word, "other")


@pytest.mark.parametrize(
    "word",
    [
        "https://huggingface.co",
        "https://huggingface.co/microsoft",
        "https://huggingface.co/datasets/org/name",
        "https://huggingface.co/spaces/org/name",
        "https://huggingface.co/docs/transformers",
        f"https://huggingface.co/{PHI}/blob/main/config.json",
        f"https://huggingface.co/{PHI}/resolve/main/model.safetensors",
        f"https://huggingface.co/{PHI}/tree/main/onnx",
        f"https://huggingface.co/{PHI}/tree",
        "https://huggingface.co/a b/c",
        "hf://name",
        "huggingface.co/microsoft",
    ],
)
def test_an_address_of_something_else(word):
    with pytest.raises(InputError, match="the address of a model's page") as caught:
        read_model_name(word)
    assert word in str(caught.value)


@pytest.mark.parametrize("word", ["https://example.org/org/name", "http://[::1/org/name"])
def test_an_address_elsewhere(word):
    with pytest.raises(InputError, match=r"expected an address of huggingface\.co"):
        read_model_name(word)


def test_a_mirror_of_the_hub(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example")
    assert read_model_name(f"https://mirror.example/{PHI}").hub_id == PHI
    assert read_model_name(f"https://huggingface.co/{PHI}").hub_id == PHI


def test_a_directory_in_every_spelling(tmp_path, monkeypatch):
    directory = tmp_path / "my phi"
    directory.mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for word in (
        directory,
        "my phi",
        "./my phi/",
        "~/my phi",
        directory.as_uri(),
        f"{directory.as_uri()}/",
        f"file://localhost{directory.as_uri().removeprefix('file://')}",
    ):
        name = read_model_name(word)
        assert (name.name, name.directory) == ("my phi", directory), word
        assert (name.hub_id, name.revision) == (None, None)


def test_a_directory_goes_before_an_id(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "microsoft" / "Phi-4-mini-instruct").mkdir(parents=True)
    assert read_model_name(PHI).directory == tmp_path / "microsoft" / "Phi-4-mini-instruct"


def test_what_is_no_directory(tmp_path):
    (tmp_path / "file").touch()
    for word in (tmp_path / "absent", "absent", "a/b/c"):
        with pytest.raises(InputError, match=f"there is no directory {word}"):
            read_model_name(word)
    with pytest.raises(InputError, match="found the file"):
        read_model_name(tmp_path / "file")
    for word in ((tmp_path / "file").as_uri(), (tmp_path / "absent").as_uri()):
        with pytest.raises(InputError, match=f"there is none at {word}"):
            read_model_name(word)
    with pytest.raises(InputError, match="a path on this machine"):
        read_model_name("file://server/share")
    with pytest.raises(InputError, match="expected file:///path"):
        read_model_name("file://[x/y")


def test_a_directory_has_no_revisions(tmp_path):
    with pytest.raises(RequestError, match=r"is a directory; leave the revision 'main' out"):
        read_model_name(tmp_path, "main")


@pytest.mark.parametrize(
    "home, hub_id, name",
    [
        ("models--microsoft--Phi-4-mini-instruct", PHI, "Phi-4-mini-instruct"),
        ("models--phi", "phi", "phi"),
        ("models--org--a-b.c_d", "org/a-b.c_d", "a-b.c_d"),
    ],
)
def test_a_snapshot_in_the_hubs_cache(tmp_path, home, hub_id, name):
    snapshot = tmp_path / home / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    link = tmp_path / "link"
    link.symlink_to(snapshot)
    for directory in (snapshot, link):
        called = name_directory(directory)
        assert (called.name, called.hub_id, called.revision) == (name, hub_id, COMMIT)
        assert called.directory == snapshot
    assert read_model_name(snapshot, COMMIT) == called
    with pytest.raises(RequestError, match="leave the revision 'main' out"):
        read_model_name(snapshot, "main")


def test_a_directory_that_looks_like_a_snapshot(tmp_path):
    for directory in (tmp_path / "snapshots" / "phi", tmp_path / "datasets--a--b/snapshots/phi"):
        directory.mkdir(parents=True)
        assert (name_directory(directory).name, name_directory(directory).hub_id) == ("phi", None)


def test_every_published_model_has_its_own_short_name():
    ids = [model["hub"] for model in published()]
    assert [published_id(hub.rpartition("/")[2]) for hub in ids] == ids
    assert [published_id(hub) for hub in ids] == ids
    assert published_id("Phi-9") is None
