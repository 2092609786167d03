"""The list of a recording's files with their SHA-256, in the form of `sha256sum`.  Pure.

`sha256sum --check SHA256SUMS` verifies a recording with nothing of ours.  The recording's own hash
is the SHA-256 of that list: a line a file, `HASH  PATH`, in the order of the paths.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass

from broker.errors import Corrupt
from broker.recordings import layout

_LINE = re.compile(r"([0-9a-f]{64})  (\S+)", re.ASCII)


@dataclass(frozen=True, slots=True)
class FileDifference:
    """A file of a recording that is not as it was recorded, with the reason."""

    path: str
    problem: str

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}"


def text_of(hashes: Mapping[str, str]) -> bytes:
    """The content of SHA256SUMS: hashes by path, in the order of the paths."""
    return "".join(f"{hashes[path]}  {path}\n" for path in sorted(hashes)).encode()


def parse(content: bytes) -> dict[str, str]:
    """The hashes by path; raises Corrupt for anything that `text_of` does not write."""
    try:
        lines = [_LINE.fullmatch(line) for line in content.decode("ascii").splitlines()]
    except UnicodeDecodeError:
        lines = [None]
    hashes = {match[2]: match[1] for match in lines if match is not None}
    if not lines or None in lines or text_of(hashes) != content:
        raise Corrupt(
            f"{layout.CHECKSUMS} is no list of hashes: it was changed after it was written"
        )
    for path in hashes:
        if not layout.is_member(path):
            raise Corrupt(f"{layout.CHECKSUMS} names {path[:80]!r}, which is no file of it")
    if not {layout.MANIFEST, layout.CARD, layout.GAPS} <= hashes.keys():
        raise Corrupt(f"{layout.CHECKSUMS} does not name all files of a recording")
    return hashes


def recording_hash(content: bytes) -> str:
    """The hash of a whole recording, from the content of its SHA256SUMS."""
    return hashlib.sha256(content).hexdigest()


def differences(listed: Mapping[str, str], present: Mapping[str, str]) -> list[FileDifference]:
    """The files whose hash differs, that are missing, or that are there and not listed."""
    problems = dict.fromkeys(listed.keys() - present.keys(), "it is missing")
    problems |= dict.fromkeys(present.keys() - listed.keys(), "it is no file of this recording")
    problems |= {
        path: f"its SHA-256 is {present[path]}; {layout.CHECKSUMS} says {listed[path]}"
        for path in listed.keys() & present.keys()
        if listed[path] != present[path]
    }
    return [FileDifference(path, problems[path]) for path in sorted(problems)]
