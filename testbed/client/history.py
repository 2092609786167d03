"""Export the stored history of a stream to standard output or to a file, with its gaps.

JSON holds samples, quality and gaps.  A table (CSV, Parquet) holds usable values, a row for each
time stamp; its gaps are in a second file, `NAME.gaps.csv`, even where there are none.
"""

import csv
import io
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import IO

from broker import api_client
from broker.aggregation import Aggregation
from broker.clock import HOUR_S, NS_PER_S, Clock, ns_of, text_of
from broker.errors import Invalid, Refused, Taken
from broker.history_query import HistoryQuery
from broker.namespace import StreamAddress, checked_space
from broker.responses.streams import GapPage, GapResponse
from testbed.client import api
from testbed.terminal import tables
from testbed.terminal.screen import Screen

ENDINGS = (".csv", ".json", ".parquet")
TIMEOUT_S = 60.0
GAPS_HEADER = "Testbed-Gaps"
"""Header of the API's answer: the number of gaps that touch the span."""


def span(
    clock: Clock,
    *,
    space: str,
    begin: str | None,
    end: str | None,
    signals: Iterable[str],
    points: int | None,
) -> HistoryQuery:
    """The span that options name: up to now and one hour long by default; raises Invalid."""
    from_ns, to_ns = ends(clock, begin, end)
    return HistoryQuery(checked_space(space), from_ns, to_ns, tuple(signals), points)


def ends(clock: Clock, begin: str | None, end: str | None) -> tuple[int, int]:
    """The instants that `--from` and `--to` name: up to now and one hour long by default."""
    to_ns = clock.now_ns() if end is None else ns_of(end)
    from_ns = to_ns - HOUR_S * NS_PER_S if begin is None else ns_of(begin)
    return from_ns, to_ns


def aggregated(wanted: HistoryQuery, every: str | None, how: str | None) -> HistoryQuery:
    """The query with one value a window, if `every` names a width; raises Invalid."""
    return replace(wanted, aggregation=Aggregation.parse(every, how))


async def print_history(stream: str, wanted: HistoryQuery, *, as_json: bool) -> None:
    """Write a history to standard output as CSV or JSON; raises Unavailable if it breaks off.

    CSV has no place for gaps: standard error names the command that lists them, if there are any.
    """
    address = StreamAddress.parse(stream)
    async with api.connect(TIMEOUT_S) as connection:
        file_format = "json" if as_json else "csv"
        gaps = await _copy(connection, address, wanted, file_format, sys.stdout.buffer)
        if gaps and wanted.signals:
            gaps = len(await _fetch_gaps(connection, address, wanted))
    if gaps and not as_json:
        command = _gaps_command(address, wanted)
        Screen(stderr=True).print(f"gaps in this span: {gaps}; see {command}")


async def export(stream: str, wanted: HistoryQuery, path: Path) -> tuple[Path, ...]:
    """Write a history to a new file whose ending names the format; the files that were written.

    Raises Invalid for an unknown ending, Taken if a file exists, Unavailable if the answer breaks
    off; a file that is not whole does not get its name.
    """
    address = StreamAddress.parse(stream)
    if path.suffix not in ENDINGS:
        raise Invalid(f"{path} has no known ending", hint=f"end it with {', '.join(ENDINGS)}")
    gaps_path = path.with_name(f"{path.stem}.gaps.csv")
    paths = (path,) if path.suffix == ".json" else (path, gaps_path)
    for file_path in paths:
        if file_path.exists():
            raise Taken(f"{file_path} is there already", hint="name a new file")
    async with api.connect(TIMEOUT_S) as connection:
        if path.suffix == ".parquet":
            parquet = _parquet()
            with _new_file(path) as file:
                gaps = await parquet.export(connection, address, wanted, Path(file.name))
        else:
            with _new_file(path) as file:
                await _copy(connection, address, wanted, path.suffix[1:], file)
            gaps = await _fetch_gaps(connection, address, wanted)
    if gaps_path in paths:
        with _new_file(gaps_path) as file:
            file.write(gaps_csv(gaps))
    return paths


def _parquet() -> ModuleType:
    """The module that writes Parquet; raises Refused if DuckDB, which it needs, is missing."""
    try:
        from testbed.client import parquet  # noqa: PLC0415 - it loads DuckDB and numpy
    except ModuleNotFoundError as exc:
        raise Refused(
            "a Parquet file needs duckdb, which is not installed",
            hint="pip install duckdb; or write a .csv or .json file",
        ) from exc
    return parquet


def _gaps_command(address: StreamAddress, wanted: HistoryQuery) -> str:
    """The command that lists the gaps of a history."""
    begin, end = (tables.instant(text_of(time_ns)) for time_ns in (wanted.from_ns, wanted.to_ns))
    return f"testbed stream gaps {address} --space {wanted.space} --from {begin} --to {end}"


def gaps_csv(gaps: Iterable[GapResponse]) -> bytes:
    """Gaps as CSV: a row for each signal of a gap; an empty signal means all signals."""
    text = io.StringIO()
    rows = csv.writer(text)
    rows.writerow(["from", "to", "cause", "signal"])
    for gap in gaps:
        for name in gap.signals or ("",):
            rows.writerow([gap.from_, gap.to, gap.cause, name])
    return text.getvalue().encode()


@contextmanager
def _new_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a new file that gets its name only once it is written without an error.

    Raises Invalid if it cannot be written there.
    """
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            yield file
        part.rename(path)
    except OSError as exc:
        raise Invalid(
            f"{path} cannot be written: {exc.strerror}", hint="name a file in a folder of yours"
        ) from exc
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


async def _copy(
    connection: api_client.Api,
    address: StreamAddress,
    wanted: HistoryQuery,
    file_format: str,
    file: IO[bytes],
) -> int:
    """Write the API's answer to a file as it arrives; the number of gaps that touch the span.

    file_format: csv or json.
    """
    params = wanted.params() | {"format": file_format}
    async with connection.stream(f"/streams/{address}/history", params=params) as answer:
        async for chunk in answer.aiter_bytes():
            file.write(chunk)
        gaps = int(answer.headers.get(GAPS_HEADER, 0))
    file.flush()
    return gaps


async def _fetch_gaps(
    connection: api_client.Api, address: StreamAddress, wanted: HistoryQuery
) -> list[GapResponse]:
    """The gaps of a span that concern its signals."""
    path = f"/streams/{address}/gaps"
    page = await connection.whole(path, GapPage, wanted.span_params())
    named, gaps = set(wanted.signals), page.items
    return [gap for gap in gaps if not (named and gap.signals) or named & set(gap.signals)]
