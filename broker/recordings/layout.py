"""Names of the files of a recording, and of the columns of its tables.  Pure.

manifest.json      span, specs, source, grants, labels, splits
streams/*.parquet  a file for each stream
gaps.parquet       what is known to be missing
croissant.json     the dataset's card for other tools
SHA256SUMS         the hash of each of these files; its own hash is the recording's
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from broker.errors import Invalid
from broker.namespace import StreamAddress

MANIFEST = "manifest.json"
CARD = "croissant.json"
GAPS = "gaps.parquet"
STREAMS = "streams"
CHECKSUMS = "SHA256SUMS"
RUN_RESULT = "result.json"
"""The file in a run's folder with its result: scenario, seed, space, span and hash."""
TIME = "time"
SPLIT = "split"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", re.ASCII)
_STREAM_FILE = re.compile(rf"{STREAMS}/[a-z0-9-]+_[a-z0-9-]+_[a-z0-9-]+\.parquet", re.ASCII)


@dataclass(frozen=True, slots=True)
class SignalColumns:
    """Columns of a signal in its stream's table: of its values, and of their quality."""

    value: str
    quality: str


def checked_name(text: str) -> str:
    """Return `text` if it can be the name of a recording, and of its folder; raises Invalid."""
    if _NAME.fullmatch(text) is None:
        raise Invalid(
            f"{text[:120]!r} is no name of a recording",
            hint="use A-Z, a-z, 0-9, '_', '.', '-', and begin with a letter or digit",
        )
    return text


def stream_file(address: StreamAddress) -> str:
    """The path of a stream's table in a recording; an id has no `_`, so no two share one."""
    return f"{STREAMS}/{address.organisation}_{address.equipment}_{address.stream}.parquet"


def is_member(path: str) -> bool:
    """Whether a recording may have a file of this path; `SHA256SUMS` is not in its own list."""
    return path in {MANIFEST, CARD, GAPS} or _STREAM_FILE.fullmatch(path) is not None


def columns(signals: Iterable[str], *, has_split: bool) -> Mapping[str, SignalColumns]:
    """The columns of each signal: named as the signal, and `SIGNAL:quality`.

    DuckDB takes names that differ in case alone as equal, so a name that is taken gets `:2`, `:3`
    and so on behind it.  No signal's own name has a colon.
    """
    taken = {TIME, SPLIT} if has_split else {TIME}
    named: dict[str, SignalColumns] = {}
    for signal in signals:
        column, number = signal, 1
        while column.lower() in taken:
            number += 1
            column = f"{signal}:{number}"
        taken.add(column.lower())
        named[signal] = SignalColumns(column, f"{column}:quality")
    return named
