"""A streamed file's hash is that of its bytes, however they came."""

import numpy as np
import pytest
from blake3 import blake3

from phiquant.targets import streamed_file
from phiquant.targets.extents import PADDING, Extents
from phiquant.targets.streamed_file import StreamedFile


def hash_of(path):
    return blake3(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("order", ["forwards", "backwards", "interleaved", "shuffled"])
@pytest.mark.parametrize("gap", [0, 24, PADDING + 7])
def test_the_hash_of_bands_in_any_order(tmp_path, monkeypatch, order, gap):
    monkeypatch.setattr(streamed_file, "SYNC_EVERY", 3000)
    rng = np.random.default_rng(1)
    bands = rng.integers(0, 256, (40, 997), np.uint8)
    numbers = {
        "forwards": range(40),
        "backwards": range(39, -1, -1),
        "interleaved": [half + step for step in range(20) for half in (0, 20)],
        "shuffled": rng.permutation(40),
    }[order]
    with StreamedFile(tmp_path / "file", b"head", 4 + 40 * (997 + gap)) as file:
        for number in numbers:
            file.put(4 + int(number) * (997 + gap), bands[number])
    padded = np.pad(bands, ((0, 0), (0, gap)))
    assert (tmp_path / "file").read_bytes() == b"head" + padded.tobytes()
    assert file.hash == hash_of(tmp_path / "file")


def test_what_is_hashed_in_passing_is_not_read_again(tmp_path, monkeypatch):
    monkeypatch.setattr(streamed_file, "SYNC_EVERY", 3000)
    with StreamedFile(tmp_path / "file", b"head", 4 + 90_000) as file:
        for first in range(0, 90_000, 1000):
            file.put(4 + first, np.full(1000, first % 251, np.uint8))
        assert file._digest.hashed > 80_000
    assert file.hash == hash_of(tmp_path / "file")


def test_a_hole_that_was_taken_for_padding_and_comes_late(tmp_path, monkeypatch):
    monkeypatch.setattr(streamed_file, "SYNC_EVERY", 3000)
    with StreamedFile(tmp_path / "file", b"head", 4 + 90_000) as file:
        for first in [0, *range(2000, 90_000, 1000), 1000]:
            file.put(4 + first, np.full(1000, 7, np.uint8))
    assert (tmp_path / "file").read_bytes() == b"head" + bytes([7]) * 90_000
    assert file.hash == hash_of(tmp_path / "file")


def test_what_is_written_through_a_mapping_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(streamed_file, "SYNC_EVERY", 3000)
    with StreamedFile(tmp_path / "file", b"", 20_000) as file:
        mapped = file.map()
        for first in range(0, 10_000, 1000):
            file.put(first, np.full(1000, 3, np.uint8))
        mapped[5:7] = 9
        mapped[-1] = 9
        mapped.flush()
    assert file.hash == hash_of(tmp_path / "file")


def test_ranges_that_grow_side_by_side_meet():
    extents = Extents()
    for step in range(100):
        extents.add(1000 * step, 1000 * (step + 1))
        extents.add(100_000 + 7000 * step, 100_000 + 7000 * (step + 1))
        assert extents.solid == (1000 * (step + 1) if step < 99 else 800_000) or step > 94
    assert extents.solid == 800_000
    assert not extents._last_by_first
