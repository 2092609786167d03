"""A recording as a tar stream, made while it is sent: nothing is written, little is in memory."""

import tarfile
from collections.abc import Generator
from typing import TYPE_CHECKING

from broker.recordings import checksums, layout

if TYPE_CHECKING:
    from broker.recordings.bundle import OpenRecording

MEDIA_TYPE = "application/x-tar"
_PIECE = 1024 * 1024
_END = bytes(2 * tarfile.BLOCKSIZE)


def pieces(recording: "OpenRecording") -> Generator[bytes]:
    """The stream of a recording in pieces of 1 MiB at most, its files in a folder of its name.

    The list of hashes comes first.  The same recording gives the same bytes.
    """
    listed = checksums.parse((recording.path / layout.CHECKSUMS).read_bytes())
    for member in [layout.CHECKSUMS, *sorted(listed)]:
        path = recording.path / member
        entry = tarfile.TarInfo(f"{recording.manifest.name}/{member}")
        entry.mode = 0o644
        with path.open("rb") as file:
            entry.size = path.stat().st_size
            yield entry.tobuf(tarfile.PAX_FORMAT)
            while piece := file.read(_PIECE):
                yield piece
        yield bytes(-entry.size % tarfile.BLOCKSIZE)
    yield _END
