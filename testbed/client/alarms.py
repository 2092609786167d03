"""The alarms of all publishers, each once, although each of their streams carries them."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from broker.namespace import StreamAddress, checked_space
from broker.responses.operations import (
    SilentGatewayResponse,
    StatusResponse,
    StreamStatusResponse,
)
from testbed.client import api
from testbed.terminal import tables
from testbed.terminal.screen import Screen
from testbed.terminal.tables import TableColumn


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """A sentence about an equipment, one of its streams, several, or the testbed itself.

    equipment: its address, or the testbed.  streams: addresses, ascending; empty for one of the
    equipment's gateway, or of the testbed.
    """

    space: str
    equipment: str
    sentence: str
    streams: tuple[str, ...] = ()

    @property
    def subject(self) -> str:
        """The stream, or the equipment, with the number of its streams that have the alarm."""
        if not self.streams:
            return self.equipment
        if len(self.streams) == 1:
            return self.streams[0]
        return f"{self.equipment} ({len(self.streams)} streams)"


_ALARM: list[TableColumn[Alarm]] = [
    TableColumn(heading="equipment or stream", cell=lambda alarm: tables.text(alarm.subject)),
    TableColumn(heading="space", cell=lambda alarm: tables.text(alarm.space)),
    TableColumn(heading="alarm", cell=lambda alarm: tables.text(alarm.sentence), is_prose=True),
]


def of_status(status: StatusResponse) -> list[Alarm]:
    """The alarms of a status, by equipment; `of_testbed` has those of the testbed itself.

    A silent gateway has one of its own, before those that it stated of its streams until then.
    """
    silences = {(each.space, each.equipment): _silence(each) for each in status.silent}
    stated = [
        replace(alarm, sentence=f"{alarm.sentence} (stated before)")
        if (alarm.space, alarm.equipment) in silences
        else alarm
        for alarm in each_once(status.streams)
    ]
    return sorted([*silences.values(), *stated], key=_place)


def each_once(streams: Iterable[StreamStatusResponse]) -> list[Alarm]:
    """The alarms of these streams by equipment, the sentences in the order of their streams."""
    having: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for stream in streams:
        equipment = str(StreamAddress.parse(stream.stream).owner)
        for sentence in stream.alarms:
            having[stream.space, equipment, sentence].append(stream.stream)
    alarms = [
        Alarm(space=space, equipment=equipment, sentence=sentence, streams=tuple(sorted(streams)))
        for (space, equipment, sentence), streams in having.items()
    ]
    return sorted(alarms, key=_place)


def _place(alarm: Alarm) -> tuple[str, str]:
    return alarm.equipment, alarm.space


def _silence(gateway: SilentGatewayResponse) -> Alarm:
    """The alarm of a gateway that states no health any more: since when, and what to do."""
    return Alarm(
        space=gateway.space,
        equipment=gateway.equipment,
        sentence=f"its gateway has said nothing since {tables.instant(gateway.since)}: it has"
        " ended, or is cut off; look whether it runs (its log says why not), and whether it is let"
        f" in: testbed gateway show {gateway.equipment}",
    )


def of_testbed(status: StatusResponse) -> list[Alarm]:
    """The alarms of the testbed itself, which belong to no stream."""
    return [
        Alarm(space="", equipment="the testbed", sentence=sentence, streams=())
        for sentence in status.alarms
    ]


async def fetch(space: str | None) -> StatusResponse:
    """The state of the streams that have an alarm; space: None for every space."""
    params = {"space": None if space is None else checked_space(space)}
    status = await api.get("/status", StatusResponse, params)
    streams = [stream for stream in status.streams if stream.alarms]
    return status.model_copy(update={"streams": streams})


def print_alarms(alarms: Sequence[Alarm], out: Screen) -> None:
    """Print a row for each alarm."""
    tables.print_rows(alarms, _ALARM, out)
