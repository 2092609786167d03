"""The list of a recording's hashes: what `sha256sum` writes, and nothing else."""

import pytest

from broker.errors import Corrupt
from broker.recordings import checksums
from broker.recordings.checksums import FileDifference

HASHES = {
    "streams/factory_pump-rig_rig.parquet": "1" * 64,
    "manifest.json": "2" * 64,
    "gaps.parquet": "3" * 64,
    "croissant.json": "4" * 64,
}
LISTING = checksums.text_of(HASHES)


def test_the_list_is_read_back_and_is_in_the_order_of_paths():
    assert checksums.parse(LISTING) == HASHES
    assert LISTING.decode().splitlines()[0] == f"{'4' * 64}  croissant.json"
    assert checksums.text_of(dict(reversed(HASHES.items()))) == LISTING


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" + LISTING,
        LISTING[:-1],
        LISTING + b"\n",
        LISTING.replace(b"  ", b" *"),
        LISTING + LISTING,
        LISTING.replace(b"gaps.parquet", b"../x.parquet"),
        LISTING.replace(b"streams/factory_pump-rig_rig", b"streams/../../passwd"),
        LISTING.replace(f"{'2' * 64}  manifest.json\n".encode(), b""),
    ],
)
def test_anything_else_is_no_list(content):
    with pytest.raises(Corrupt, match="SHA256SUMS"):
        checksums.parse(content)


def test_a_file_that_differs_is_missing_or_is_too_many_is_named():
    present = {**HASHES, "manifest.json": "5" * 64, "notes.txt": ""}
    del present["gaps.parquet"]
    assert checksums.differences(HASHES, HASHES) == []
    problems = checksums.differences(HASHES, present)
    assert [each.path for each in problems] == ["gaps.parquet", "manifest.json", "notes.txt"]
    assert problems[0] == FileDifference("gaps.parquet", "it is missing")
    assert "5" * 64 in str(problems[1])
