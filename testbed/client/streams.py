"""List streams with their specs, and fetch what is behind the counts of gaps and dead letters."""

from broker.clock import ns_of
from broker.namespace import StreamAddress, checked_space
from broker.responses.base import PageResponse
from broker.responses.equipment import SignalResponse, StreamPage, StreamResponse
from broker.responses.streams import DeadLetterPage, DeadLetterResponse, GapPage, GapResponse
from testbed.client import api
from testbed.terminal import tables
from testbed.terminal.screen import Screen, plain
from testbed.terminal.tables import TableColumn


def _freshness(stream: StreamResponse) -> str:
    """A line for each space: its name, fresh or stale, and the newest sample's time."""
    lines = [
        f"{space} {stated.state} {tables.instant(stated.last) if stated.last else 'never'}"
        for space, stated in sorted(stream.freshness.items())
    ]
    return "\n".join(map(plain, lines)) or tables.NOTHING


_STREAM: list[TableColumn[StreamResponse]] = [
    *tables.fields(StreamResponse, "stream"),
    TableColumn(heading="spec", cell=lambda stream: str(stream.spec.version)),
    TableColumn(heading="signals", cell=lambda stream: str(len(stream.spec.signals))),
    TableColumn(heading="space, state, newest sample", cell=_freshness),
]
_DETAILS: list[TableColumn[StreamResponse]] = [
    *_STREAM,
    TableColumn(heading="trigger", cell=lambda stream: tables.text(stream.spec.trigger)),
    TableColumn(heading="period s", cell=lambda stream: tables.text(stream.spec.period_s)),
    TableColumn(
        heading="max silence s", cell=lambda stream: tables.text(stream.spec.max_silence_s)
    ),
    TableColumn(
        heading="past, future limit s",
        cell=lambda stream: f"{stream.spec.past_limit_s:g}, {stream.spec.future_limit_s:g}",
    ),
    TableColumn(
        heading="description",
        cell=lambda stream: tables.text(stream.spec.description),
        is_prose=True,
    ),
]
_SIGNAL: list[TableColumn[SignalResponse]] = [
    *tables.fields(SignalResponse, "name"),
    TableColumn(
        heading="dtype",
        cell=lambda signal: f"{signal.dtype}{signal.shape}" if signal.shape else signal.dtype,
    ),
    *tables.fields(SignalResponse, "unit", "low", "high", "resolution", "node", "description"),
]
_GAP: list[TableColumn[GapResponse]] = [
    *tables.fields(GapResponse, "from_", "to", "cause"),
    TableColumn(
        heading="signals", cell=lambda gap: tables.text(gap.signals) if gap.signals else "all"
    ),
]
_DEAD_LETTER = tables.fields(
    DeadLetterResponse, "id", "received", "epoch", "seq", "signal", "time", "value", "reason"
)


async def fetch_all(space: str | None, most: int) -> StreamPage:
    """The streams that the caller sees, `most` at most; space: that states a freshness there."""
    wanted = None if space is None else checked_space(space)
    page = await api.whole("/streams", StreamPage, most=most if wanted is None else None)
    if wanted is None:
        return page
    items = [stream for stream in page.items if wanted in stream.freshness]
    following = items[most - 1].stream if len(items) > most else None
    return page.model_copy(update={"items": items[:most], "next": following})


async def fetch(stream: str, space: str | None = None) -> StreamResponse:
    """A stream with its newest spec; space: the only one whose freshness is wanted."""
    wanted = None if space is None else checked_space(space)
    answer = await api.get(f"/streams/{StreamAddress.parse(stream)}", StreamResponse)
    if wanted is None:
        return answer
    stated = {each: fresh for each, fresh in answer.freshness.items() if each == wanted}
    return answer.model_copy(update={"freshness": stated})


async def fetch_gaps(
    stream: str, *, space: str, begin: str | None, end: str | None, most: int
) -> GapPage:
    """The gaps that touch a span, `most` at most; begin, end: the whole past where None."""
    path = f"/streams/{StreamAddress.parse(stream)}/gaps"
    return await api.whole(path, GapPage, _span(space, begin, end), most=most)


async def fetch_dead_letters(
    stream: str, *, space: str, begin: str | None, end: str | None, most: int
) -> DeadLetterPage:
    """The samples that arrived in a span and could not be stored, `most` at most."""
    path = f"/streams/{StreamAddress.parse(stream)}/dead-letters"
    return await api.whole(path, DeadLetterPage, _span(space, begin, end), most=most)


def _span(space: str, begin: str | None, end: str | None) -> dict[str, str | None]:
    """The parameters of a span; raises Invalid for a space or an instant that is none."""
    for text in (begin, end):
        if text is not None:
            ns_of(text)
    return {"space": checked_space(space), "from": begin, "to": end}


def print_streams(page: StreamPage, out: Screen) -> None:
    """Print a row for each stream."""
    tables.print_rows(page.items, _STREAM, out)
    _print_rest(page, out)


def print_stream(stream: StreamResponse, out: Screen) -> None:
    """Print a stream, and a row for each of its signals."""
    tables.print_record(stream, _DETAILS, out)
    out.print()
    tables.print_rows(stream.spec.signals, _SIGNAL, out)


def print_gaps(page: GapPage, out: Screen) -> None:
    """Print a row for each gap."""
    tables.print_rows(page.items, _GAP, out)
    _print_rest(page, out)


def print_dead_letters(page: DeadLetterPage, out: Screen) -> None:
    """Print a row for each dead letter."""
    tables.print_rows(page.items, _DEAD_LETTER, out)
    _print_rest(page, out)


def _print_rest(page: PageResponse, out: Screen) -> None:
    """Say that there are more rows than were fetched."""
    if page.next is not None:
        count = len(page.items)
        out.print(f"the first {count}; there are more: --limit {10 * count}", style="yellow")
