"""Fetch and print the state of all streams, the worst first."""

from collections.abc import Sequence

from broker.clock import DAY_S, HOUR_S, NS_PER_S, Clock, ns_of
from broker.messages import Freshness
from broker.namespace import checked_space
from broker.responses.operations import (
    BusRefusalResponse,
    NoticeChannelResponse,
    StatusResponse,
    StreamStatusResponse,
)
from testbed.client import alarms, api
from testbed.terminal import tables
from testbed.terminal.screen import Screen
from testbed.terminal.tables import TableColumn

_REFUSED: list[TableColumn[BusRefusalResponse]] = [
    TableColumn(heading="who", cell=lambda refusal: tables.text(_party(refusal))),
    *tables.fields(BusRefusalResponse, "act", "target", "count", "last"),
    TableColumn(
        heading="why, and what to do",
        cell=lambda refusal: tables.text(f"{refusal.reason}; {refusal.advice}"),
        is_prose=True,
    ),
]
_AGES = ((DAY_S, "d"), (HOUR_S, "h"), (60.0, "min"))


async def fetch(within_s: float, space: str | None) -> StatusResponse:
    """The state of the streams that the caller may read; gaps are counted over `within_s`.

    space: None for every space.
    """
    wanted = None if space is None else checked_space(space)
    status = await api.get("/status", StatusResponse, {"within_s": within_s})
    streams = [stream for stream in status.streams if wanted in {None, stream.space}]
    return status.model_copy(update={"streams": streams})


def print_status(status: StatusResponse, out: Screen, clock: Clock) -> None:
    """Print what is wrong with recorder and broker, a row for each stream, and each alarm once."""
    if status.interrupted:
        out.print(f"recording is interrupted: {status.interrupted}", style="red")
    if not status.broker:
        out.print("the API is not connected to the broker", style="red")
    for channel in status.notices:
        if channel.failed:
            out.print(_failing(channel), style="red")
    streams = sorted(status.streams, key=_severity, reverse=True)
    tables.print_rows(streams, _columns(clock.now_ns()), out)
    stale = sum(stream.state is Freshness.STALE for stream in streams)
    since = f"gaps and dead letters since {tables.instant(status.since)}"
    out.print(f"{len(streams)} streams, {stale} stale; {since}")
    if stated := alarms.each_once(streams):
        out.print("\nalarms:", style="bold")
        alarms.print_alarms(stated, out)
    if status.refused:
        out.print(f"\nrefused on the bus since {tables.instant(status.since)}:", style="bold")
        tables.print_rows(status.refused, _REFUSED, out)
    for line in _next_commands(streams, status.since):
        out.print(line, style="dim")


def _columns(now_ns: int) -> list[TableColumn[StreamStatusResponse]]:
    return [
        *tables.fields(StreamStatusResponse, "stream", "space"),
        tables.field(StreamStatusResponse, "state", style=_state_style),
        TableColumn(heading="newest", cell=lambda stream: _age(stream.last, now_ns)),
        tables.field(StreamStatusResponse, "gaps", style=lambda stream: _count_style(stream.gaps)),
        tables.field(
            StreamStatusResponse,
            "dead_letters",
            style=lambda stream: _count_style(stream.dead_letters),
        ),
        TableColumn(
            heading="alarms",
            cell=lambda stream: str(len(stream.alarms)),
            style=lambda stream: _count_style(len(stream.alarms)),
        ),
    ]


def _next_commands(streams: Sequence[StreamStatusResponse], since: str) -> list[str]:
    """The commands that show what is behind the largest counts."""
    commands = []
    for counted, command in (("gaps", "gaps"), ("dead_letters", "dead-letters")):
        noun = counted.replace("_", " ")
        worst = max(streams, key=lambda stream: getattr(stream, counted), default=None)
        if worst is not None and getattr(worst, counted):
            arguments = f"{worst.stream} --space {worst.space} --from {tables.instant(since)}"
            commands.append(f"see the {noun}: testbed stream {command} {arguments}")
    return commands


def _party(refusal: BusRefusalResponse) -> str:
    """The principal with its organisation, or the address of one that was not admitted."""
    if refusal.organisation is not None:
        return f"{refusal.principal} of {refusal.organisation}"
    name = f"{refusal.principal} (not admitted)" if refusal.principal else "nobody by name"
    return f"{name} at {refusal.source}" if refusal.source else name


def _failing(channel: NoticeChannelResponse) -> str:
    """A channel whose notices do not arrive, in a sentence."""
    return (
        f"notices by {channel.channel} do not arrive: {channel.reason}; {channel.waiting} wait,"
        f" the oldest since {tables.instant(channel.since)}"
    )


def _severity(stream: StreamStatusResponse) -> tuple[bool, bool, int, int]:
    """The sort key of a stream: stale, alarms, gaps, dead letters."""
    return (
        stream.state is Freshness.STALE,
        bool(stream.alarms),
        stream.gaps,
        stream.dead_letters,
    )


def _state_style(stream: StreamStatusResponse) -> str:
    return "red" if stream.state is Freshness.STALE else ""


def _count_style(number: int) -> str:
    return "yellow" if number else ""


def _age(last: str | None, now_ns: int) -> str:
    """The time since an instant, in the largest unit that gives a number of 1 or more."""
    if last is None:
        return "never"
    seconds = (now_ns - ns_of(last)) / NS_PER_S
    for size, unit in _AGES:
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"
