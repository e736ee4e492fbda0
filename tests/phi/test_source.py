"""Where checkpoints come from. The hub itself is out of reach here: its cache stands in."""

import pytest

from phiquant.errors import InputError
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


def test_an_id_in_the_cache(offline_cache):
    home = offline_cache / "models--example--tiny-phi"
    snapshot = write_tiny_checkpoint(home / "snapshots" / COMMIT)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text(COMMIT)
    source = locate("example/tiny-phi")
    assert source.directory == snapshot
    assert (source.name, source.hub_id, source.revision) == ("tiny-phi", "example/tiny-phi", COMMIT)


def test_an_id_that_cannot_be_fetched(offline_cache):
    with pytest.raises(InputError, match="not in the local cache and the hub cannot be reached"):
        locate("example/absent")
