"""The alarms of all publishers, each once, although each of their streams carries them."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from broker.namespace import StreamAddress, checked_space
from broker.responses.operations import StatusResponse, StreamStatusResponse
from testbed.client import api
from testbed.terminal import tables
from testbed.terminal.screen import Screen
from testbed.terminal.tables import TableColumn


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """A sentence that the publisher of an equipment states of one of its streams, or of several.

    streams: addresses, ascending.
    """

    space: str
    equipment: str
    sentence: str
    streams: tuple[str, ...]

    @property
    def subject(self) -> str:
        """The stream, or the equipment with the number of its streams that have the alarm."""
        if len(self.streams) == 1:
            return self.streams[0]
        return f"{self.equipment} ({len(self.streams)} streams)"


_ALARM: list[TableColumn[Alarm]] = [
    TableColumn(heading="equipment or stream", cell=lambda alarm: tables.text(alarm.subject)),
    TableColumn(heading="space", cell=lambda alarm: tables.text(alarm.space)),
    TableColumn(heading="alarm", cell=lambda alarm: tables.text(alarm.sentence), is_prose=True),
]


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
    return sorted(alarms, key=lambda alarm: (alarm.equipment, alarm.space))


async def fetch(space: str | None) -> StatusResponse:
    """The state of the streams that have an alarm; space: None for every space."""
    wanted = None if space is None else checked_space(space)
    status = await api.get("/status", StatusResponse)
    streams = [
        stream for stream in status.streams if stream.alarms and wanted in {None, stream.space}
    ]
    return status.model_copy(update={"streams": streams})


def print_alarms(alarms: Sequence[Alarm], out: Screen) -> None:
    """Print a row for each alarm."""
    tables.print_rows(alarms, _ALARM, out)
