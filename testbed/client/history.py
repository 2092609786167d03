"""`testbed history`: what is stored of a stream, on the screen or in a file, its gaps beside it.

JSON holds samples, quality and gaps.  A table (CSV, Parquet) holds usable values, a row a time
stamp; its gaps stand in a second file, `NAME.gaps.csv`, even where there are none.
"""

import csv
import io
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from broker import api_client, codec
from broker.batch import Gap
from broker.clock import NS_PER_S, Clock, ns_of, text_of
from broker.errors import Invalid, Taken
from broker.namespace import StreamAddress, checked_space
from testbed.client import api, parquet
from testbed_sdk import history
from testbed_sdk.history import HistoryQuery

ENDINGS = (".csv", ".json", ".parquet")
PATIENCE_S = 60.0


def span(
    clock: Clock,
    *,
    space: str,
    begin: str | None,
    end: str | None,
    signals: Iterable[str],
    points: int | None,
) -> HistoryQuery:
    """What is asked for; up to now and an hour long where nothing else is said.  Raises Invalid."""
    to_ns = clock.now_ns() if end is None else ns_of(end)
    from_ns = to_ns - 3_600 * NS_PER_S if begin is None else ns_of(begin)
    return HistoryQuery(checked_space(space), from_ns, to_ns, tuple(signals), points)


async def printed(stream: str, asked: HistoryQuery, *, as_json: bool) -> None:
    """A history on standard output, as CSV or JSON; raises Unavailable if the answer breaks off."""
    async with api.door(PATIENCE_S) as door:
        kind = "json" if as_json else "csv"
        await _copied(door, StreamAddress.parse(stream), asked, kind, sys.stdout.buffer)


async def written(stream: str, asked: HistoryQuery, path: Path) -> tuple[Path, ...]:
    """A history in a new file of the kind that its ending says, with its gaps; the files made.

    Raises Invalid for an ending that is not known, Taken if a file is there already, Unavailable if
    the answer breaks off: what was begun is not left under its name.
    """
    address = StreamAddress.parse(stream)
    if path.suffix not in ENDINGS:
        raise Invalid(f"{path} has no known ending", hint=f"end it with {', '.join(ENDINGS)}")
    beside = path.with_name(f"{path.stem}.gaps.csv")
    made = (path,) if path.suffix == ".json" else (path, beside)
    for one in made:
        if one.exists():
            raise Taken(f"{one} is there already", hint="name a new file")
    async with api.door(PATIENCE_S) as door:
        if path.suffix == ".parquet":
            found = await history.fetch(door, address, asked)
            with _new(path) as file:
                parquet.write(Path(file.name), found)
            gaps: Iterable[Gap] = found.gaps
        else:
            with _new(path) as file:
                await _copied(door, address, asked, path.suffix[1:], file)
            gaps = await _gaps(door, address, asked)
    if beside in made:
        with _new(beside) as file:
            file.write(table_of(gaps))
    return made


def table_of(gaps: Iterable[Gap]) -> bytes:
    """Gaps as CSV: a row a signal, and one without a signal where all of them are meant."""
    text = io.StringIO()
    rows = csv.writer(text)
    rows.writerow(["from", "to", "cause", "signal"])
    for gap in gaps:
        for name in gap.signals or ("",):
            rows.writerow([text_of(gap.from_ns), text_of(gap.to_ns), gap.cause, name])
    return text.getvalue().encode()


@contextmanager
def _new(path: Path) -> Iterator[IO[bytes]]:
    """A file that has its name only once it is whole."""
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            yield file
        part.rename(path)
    finally:
        part.unlink(missing_ok=True)


def _params(asked: HistoryQuery) -> dict[str, Any]:
    ends = {"from": text_of(asked.from_ns), "to": text_of(asked.to_ns)}
    return {"space": asked.space} | ends


async def _copied(
    door: api_client.Api, address: StreamAddress, asked: HistoryQuery, kind: str, file: IO[bytes]
) -> None:
    params = _params(asked) | {"format": kind, "signals": list(asked.signals)}
    if asked.points is not None:
        params["points"] = asked.points
    async with door.stream(f"/streams/{address}/history", params=params) as answer:
        async for chunk in answer.aiter_bytes():
            file.write(chunk)
    file.flush()


async def _gaps(door: api_client.Api, address: StreamAddress, asked: HistoryQuery) -> list[Gap]:
    """The gaps of the same span, page by page, those of the signals that were asked for."""
    params = _params(asked) | {"limit": 1_000}
    told = await door.items(f"/streams/{address}/gaps", **params)
    found = [codec.gap_from_json(one) for one in told]
    wanted = set(asked.signals)
    return [one for one in found if not (wanted and one.signals) or wanted & set(one.signals)]
