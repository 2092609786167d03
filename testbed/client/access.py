"""Pause grants, and report who could read an equipment's streams and who did."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from broker.namespace import EquipmentAddress
from broker.responses.access import (
    AccessResponse,
    HttpReadsResponse,
    MqttSessionResponse,
    PossibleReadResponse,
    ReaderResponse,
    TakenStreamResponse,
)
from broker.responses.grants import PauseResponse, ResumedResponse
from testbed.client import api
from testbed.terminal import tables
from testbed.terminal.screen import Screen
from testbed.terminal.tables import TableColumn

_Read = TypeVar("_Read", bound=ReaderResponse)

_WHO = ("organisation", "principal")
_COULD = tables.fields(
    PossibleReadResponse,
    *(*_WHO, "kind", "stream", "space", "from_", "until", "grant", "purpose"),
    whole_seconds=True,
)
_OVER_HTTP = tables.fields(
    HttpReadsResponse,
    *(*_WHO, "stream", "space", "day", "way", "times", "last"),
    whole_seconds=True,
)
_ON_THE_BUS: list[TableColumn[MqttSessionResponse]] = [
    *tables.fields(
        MqttSessionResponse,
        *(*_WHO, "stream", "space", "from_", "until", "minutes"),
        whole_seconds=True,
    ),
    TableColumn(heading="batches at most", cell=lambda read: str(read.batches)),
]

_RECORDED: list[TableColumn[TakenStreamResponse]] = [
    TableColumn(heading="recording", cell=lambda read: f"server:{read.recording} ({read.name})"),
    *tables.fields(
        TakenStreamResponse,
        *(*_WHO, "stream", "space", "from_", "to", "samples", "bytes", "state", "created"),
        whole_seconds=True,
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class PausedGrants:
    """The grants that a pause stops: of a company, of an equipment, or all that the caller gave."""

    company: str | None
    equipment: str | None

    @property
    def body(self) -> dict[str, str | None]:
        """The API's JSON."""
        return {"company": self.company, "equipment": self.equipment}

    def __str__(self) -> str:
        company = f" to {self.company}" if self.company else ""
        equipment = f" of {self.equipment}" if self.equipment else ""
        return f"all grants{company}{equipment}" if company or equipment else "all your grants"


async def pause(grants: PausedGrants) -> PauseResponse:
    """Stop grants at once."""
    return await api.send("POST", "/pauses", PauseResponse, grants.body)


async def resume(grants: PausedGrants) -> ResumedResponse:
    """End the pauses of exactly these grants; the number of pauses that ended."""
    async with api.connect() as connection:
        return await connection.send("DELETE", "/pauses", ResumedResponse, params=grants.body)


async def fetch(
    equipment: str, *, at: str | None, begin: str | None, end: str | None
) -> AccessResponse:
    """The access report of an equipment, at an instant or for a span; now if all are None."""
    path = f"/equipment/{EquipmentAddress.parse(equipment)}/access"
    return await api.get(path, AccessResponse, {"at": at, "from": begin, "to": end})


def print_report(report: AccessResponse, out: Screen, *, whole: bool) -> None:
    """Print the readers of other organisations, then those of the equipment's own.

    whole: print the own ones row by row, instead of how many they are.
    """
    own = EquipmentAddress.parse(report.equipment).organisation
    _print_could(report, own, out, whole=whole)
    span = f"from {tables.instant(report.did.from_)} to {tables.instant(report.did.to)}"
    out.print(f"\nwho did read over HTTP, {span}:", style="bold")
    _print_reads(report.did.http, own, _OVER_HTTP, out, whole=whole)
    out.print(f"\nwho was connected to the broker with the right to read, {span}:", style="bold")
    _print_reads(report.did.mqtt, own, _ON_THE_BUS, out, whole=whole)
    if report.recordings:
        out.print(f"\nwho had it recorded on the server, {span}:", style="bold")
        _print_reads(report.recordings, own, _RECORDED, out, whole=whole)


def _print_could(report: AccessResponse, own: str, out: Screen, *, whole: bool) -> None:
    others, owned = _divided(report.could, own)
    out.print(f"who could read {report.equipment}, of other organisations:", style="bold")
    tables.print_rows(others, _COULD, out)
    if whole:
        out.print(f"\nof {own} itself:", style="bold")
        tables.print_rows(owned, _COULD, out)
        return
    readers = {(right.kind, right.principal) for right in owned}
    kinds = sorted({kind for kind, _ in readers})
    counts = [_count(sum(each == kind for each, _ in readers), kind) for kind in kinds]
    streams = _count(len({right.stream for right in owned}), "stream")
    rows = _count(len(owned), "row")
    summary = f"{', '.join(counts)}, {streams} ({rows}, with --all)" if owned else "nobody"
    out.print(f"and of {own} itself: {summary}")


def _print_reads(
    reads: Sequence[_Read],
    own: str,
    columns: Sequence[TableColumn[_Read]],
    out: Screen,
    *,
    whole: bool,
) -> None:
    """Print the reads by others, then those by the equipment's own organisation or their number."""
    others, owned = _divided(reads, own)
    tables.print_rows([*others, *owned] if whole else others, columns, out)
    if owned and not whole:
        readers = _count(len({read.principal for read in owned}), "reader")
        rows = _count(len(owned), "row")
        out.print(f"and of {own} itself: {readers} ({rows}, with --all)")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _divided(reads: Sequence[_Read], own: str) -> tuple[list[_Read], list[_Read]]:
    """The rows of other organisations, and those of the equipment's own."""
    return (
        [read for read in reads if read.organisation != own],
        [read for read in reads if read.organisation == own],
    )
