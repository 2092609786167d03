"""Fetch and print the state of all streams, the worst first."""

from collections.abc import Sequence

from broker import namespace
from broker.clock import DAY_S, HOUR_S, NS_PER_S, Clock, ns_of
from broker.errors import Invalid
from broker.messages import Freshness
from broker.namespace import LIVE, StreamTopic, checked_space
from broker.responses.operations import (
    BusRefusalResponse,
    NoticeChannelResponse,
    StatusResponse,
    StreamStatusResponse,
)
from testbed.client import alarms, api
from testbed.terminal import tables
from testbed.terminal.screen import Screen, plain
from testbed.terminal.tables import TableColumn

MOST_OTHERS = 5
"""Lines about refusals of other organisations' programs; the rest is counted."""
_AGES = ((DAY_S, "d"), (HOUR_S, "h"), (60.0, "min"))


async def fetch(within_s: float, space: str | None) -> StatusResponse:
    """The state of the streams that the caller may read; gaps are counted over `within_s`.

    space: None for every space.
    """
    chosen = None if space is None else checked_space(space)
    return await api.get("/status", StatusResponse, {"within_s": within_s, "space": chosen})


def print_status(status: StatusResponse, out: Screen, clock: Clock) -> None:
    """Print what is wrong with recorder and broker, a row for each stream, and each alarm once."""
    if status.interrupted:
        out.print(f"recording is interrupted: {status.interrupted}", style="red")
    if not status.broker:
        out.print("the API is not connected to the broker", style="red")
    for alarm in status.alarms:
        out.print(plain(alarm), style="red")
    for channel in status.notices:
        if channel.failed:
            out.print(_failing(channel), style="red")
    streams = sorted(status.streams, key=_severity, reverse=True)
    tables.print_rows(streams, _columns(clock.now_ns()), out)
    stale = sum(stream.state is Freshness.STALE for stream in streams)
    since = f"gaps and dead letters since {tables.instant(status.since)}"
    noun = "stream" if len(streams) == 1 else "streams"
    out.print(f"{len(streams)} {noun}, {stale} stale; {since}")
    for line in _silences(status):
        out.print(line, style="yellow")
    if stated := alarms.of_status(status):
        out.print("\nalarms:", style="bold")
        alarms.print_alarms(stated, out)
    if status.refused:
        _print_refused(status, out)
    for line in _next_commands(streams, status.since):
        out.print(line, style="dim")


def _columns(now_ns: int) -> list[TableColumn[StreamStatusResponse]]:
    return [
        *tables.fields(StreamStatusResponse, "stream", "space"),
        tables.field(StreamStatusResponse, "state", style=_state_style),
        TableColumn(heading="newest", cell=lambda stream: _age(stream, now_ns)),
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


def _silences(status: StatusResponse) -> list[str]:
    """A sentence for each equipment with stale streams whose gateway goes on: since when.

    A silent gateway is an alarm.
    """
    silent = {(each.space, each.equipment) for each in status.silent}
    stale: dict[str, list[StreamStatusResponse]] = {}
    for stream in status.streams:
        equipment = stream.stream.rpartition("/")[0]
        if stream.state is Freshness.STALE and (stream.space, equipment) not in silent:
            stale.setdefault(equipment, []).append(stream)
    sentences = []
    for equipment, streams in sorted(stale.items()):
        newest = max((stream.last for stream in streams if stream.last), default=None)
        since = "so far" if newest is None else f"since {tables.instant(newest)}"
        sentences.append(
            f"{equipment}: nothing came {since}; its gateway runs, so look at the machine, and at"
            " what the gateway's log says of it"
        )
    return sentences


def _print_refused(status: StatusResponse, out: Screen) -> None:
    """Print the refusals of one's own programs with what to do, and of others a line for each."""
    out.print(f"\nrefused on the bus since {tables.instant(status.since)}:", style="bold")
    own = _alike([each for each in status.refused if each.own], with_advice=True)
    others = _alike([each for each in status.refused if not each.own], with_advice=False)
    for alike in own:
        out.print(f"{_sentence(alike)}\n  {plain(alike[0].advice)}")
    for alike in others[:MOST_OTHERS]:
        out.print(_sentence(alike))
    if others:
        rest = sum(each.count for alike in others[MOST_OTHERS:] for each in alike)
        acts = sorted({each.act for alike in others for each in alike})
        begin = f"{status.since[:19]}Z"
        commands = (f"testbed audit list --action {act} --from {begin}" for act in acts)
        lead = f"{rest} more of other organisations; all" if rest else "those of others"
        out.print(f"{lead}: {', '.join(commands)}", style="dim")


def _alike(
    refusals: Sequence[BusRefusalResponse], *, with_advice: bool
) -> list[list[BusRefusalResponse]]:
    """Refusals of one party on one stream together, the latest first.

    with_advice: apart where what to do is another.
    """
    groups: dict[tuple[str, ...], list[BusRefusalResponse]] = {}
    for each in refusals:
        party = _party(each) if with_advice or each.organisation is None else each.organisation
        key = (party, each.act, _target(each), each.reason, each.advice if with_advice else "")
        groups.setdefault(key, []).append(each)
    return list(groups.values())


def _sentence(alike: Sequence[BusRefusalResponse]) -> str:
    """A line with the party, the act, how often, when last and why."""
    newest = alike[0]
    parties = dict.fromkeys(map(_party, alike))
    who = next(iter(parties)) if len(parties) == 1 else f"{len(parties)} of {newest.organisation}"
    count = sum(each.count for each in alike)
    last = tables.instant(max(each.last for each in alike))
    times = "once" if count == 1 else f"{count} times"
    return plain(f"{who}: {newest.act} {_target(newest)}, {times}, last {last}: {newest.reason}")


def _target(refusal: BusRefusalResponse) -> str:
    """The stream of a topic, with its space unless that is live; else the topic as it is."""
    try:
        topic = namespace.parse(refusal.target)
    except Invalid:
        return refusal.target
    if not isinstance(topic, StreamTopic):
        return refusal.target
    return str(topic.address) if topic.space == LIVE else f"{topic.space}:{topic.address}"


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


def _age(stream: StreamStatusResponse, now_ns: int) -> str:
    """The time since the newest sample, in the largest unit that gives a number of 1 or more.

    A stream without a state, such as the output of a prototype, has none where nothing was stored.
    """
    if stream.last is None:
        return tables.NOTHING if stream.state is None else "never"
    seconds = (now_ns - ns_of(stream.last)) / NS_PER_S
    for size, unit in _AGES:
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"
