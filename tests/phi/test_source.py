"""Where checkpoints come from. The hub itself is out of reach here: its cache stands in."""

import pytest

from phiquant.errors import InputError, RequestError
from phiquant.phi.source import locate
from tiny_models import write_tiny_checkpoint

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def test_a_directory(tmp_path):
    source = locate(str(tmp_path))
    assert (source.directory, source.name, source.hub_id) == (tmp_path, tmp_path.name, None)


def test_a_file_and_nothing(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="found the file"):
        locate(str(tmp_path / "file"))
    with pytest.raises(InputError, match="there is no directory"):
        locate(str(tmp_path / "absent"))


@pytest.fixture
def offline_cache(tmp_path, monkeypatch):
    """An empty hub cache, and a hub that is told to stay offline."""
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path


@pytest.fixture
def snapshot(offline_cache):
    """The state `main`, and the tag v1, of example/tiny-phi in the cache."""
    home = offline_cache / "models--example--tiny-phi"
    directory = write_tiny_checkpoint(home / "snapshots" / COMMIT)
    (home / "refs").mkdir()
    for name in ("main", "v1"):
        (home / "refs" / name).write_text(COMMIT)
    return directory


@pytest.mark.parametrize(
    "word",
    [
        "example/tiny-phi",
        "https://huggingface.co/example/tiny-phi",
        "https://huggingface.co/example/tiny-phi/tree/main",
        "hf.co/example/tiny-phi/tree/v1",
        f"https://huggingface.co/example/tiny-phi/tree/{COMMIT}",
        "hf://example/tiny-phi@v1",
    ],
)
def test_a_model_in_the_cache(snapshot, word):
    source = locate(word)
    assert source.directory == snapshot
    assert (source.name, source.hub_id, source.revision) == ("tiny-phi", "example/tiny-phi", COMMIT)


def test_the_snapshot_itself(snapshot):
    for word in (snapshot, snapshot.as_uri()):
        assert locate(word) == locate("example/tiny-phi")


def test_the_revision_may_stand_beside_the_address(snapshot):
    for revision in ("v1", COMMIT):
        assert locate("https://huggingface.co/example/tiny-phi", revision).directory == snapshot
    with pytest.raises(RequestError, match=r"'v1', and the request .*'main'"):
        locate("https://huggingface.co/example/tiny-phi/tree/v1", "main")
    with pytest.raises(InputError, match="cache"):
        locate("https://huggingface.co/example/tiny-phi/tree/v2")


def test_an_id_that_cannot_be_fetched(offline_cache):
    for word in ("example/absent", "https://huggingface.co/example/absent", "Phi-4-mini-instruct"):
        with pytest.raises(InputError, match="not in the local cache and the hub cannot be reach"):
            locate(word)
