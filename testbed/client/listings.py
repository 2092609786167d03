"""Set, fetch and print the listings of equipment."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from broker.errors import Invalid
from broker.namespace import EquipmentAddress, StreamAddress
from broker.responses.grants import ListingPage, ListingResponse
from testbed.client import api, credentials
from testbed.terminal import tables
from testbed.terminal.screen import Screen
from testbed.terminal.tables import TableColumn


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleSpan:
    """The span of a stream that a listing shows as an example; all three or none are given."""

    stream: str | None
    begin: str | None
    end: str | None

    @property
    def body(self) -> dict[str, Any] | None:
        """The API's JSON, None where nothing is given; raises Invalid where a part is missing."""
        if self.stream is None and self.begin is None and self.end is None:
            return None
        if self.stream is None or self.begin is None or self.end is None:
            raise Invalid("the sample is not whole", hint="--sample, --sample-from and --sample-to")
        return credentials.stream_body(self.stream) | {"from": self.begin, "to": self.end}


@dataclass(frozen=True, slots=True, kw_only=True)
class Audience:
    """To whom an equipment is listed: organisations, everybody or nobody; exactly one of them."""

    organisations: Sequence[str]
    everybody: bool
    nobody: bool


async def store(
    equipment: str, audience: Audience, terms: str | None, sample: SampleSpan
) -> ListingResponse:
    """List an equipment, or end its listing; the listing as it is then.

    terms: None for those that it has.
    """
    path = f"/equipment/{EquipmentAddress.parse(equipment)}/listing"
    if (bool(audience.organisations), audience.everybody, audience.nobody).count(True) != 1:
        raise Invalid("to whom is not said", hint="--company ID, --everybody or --nobody")
    if audience.nobody:
        await api.request("DELETE", path)
        return await api.get(path, ListingResponse)
    body = {
        "everybody": audience.everybody,
        "organisations": list(audience.organisations),
        "terms": terms,
        "sample": sample.body,
    }
    return await api.send("PUT", path, ListingResponse, body)


async def fetch(equipment: str) -> ListingResponse:
    """The listing of an equipment."""
    path = f"/equipment/{EquipmentAddress.parse(equipment)}/listing"
    return await api.get(path, ListingResponse)


async def fetch_all() -> ListingPage:
    """The equipment of other organisations that is listed to the caller's."""
    return await api.whole("/listings", ListingPage)


def print_listing(listing: ListingResponse, out: Screen) -> None:
    """Print an equipment: its names, terms, streams and example, and to whom it is listed."""
    lines = {
        "equipment": f"{listing.organisation}/{listing.equipment} ({listing.kind})",
        "name": listing.name,
        "description": listing.description,
        "site": ", ".join(listing.site.values()),
        "terms": listing.terms,
        "listed to": _audience(listing),
    }
    for label, text in lines.items():
        if text:
            out.print(f"{label:<12}{text}")
    for stream in listing.streams:
        signals = ", ".join(f"{name} [{unit}]" for name, unit in stream.signals.items())
        out.print(f"{'stream':<12}{stream.stream}: {signals}")
    if sample := listing.sample:
        span = f"{tables.instant(sample.from_)} to {tables.instant(sample.to)}"
        out.print(f"{'sample':<12}{sample.space}:{sample.stream} {span}")


def print_table(listings: ListingPage, out: Screen) -> None:
    """Print a row for each listing."""
    tables.print_rows(listings.items, _LISTING, out)


def _audience(listing: ListingResponse) -> str:
    """To whom an equipment is listed, in words; empty where only its owner may see that."""
    if listing.everybody:
        return "everybody"
    return "" if listing.listed_to is None else ", ".join(listing.listed_to) or "nobody"


def _streams(listing: ListingResponse) -> str:
    """The names of an equipment's streams, a line each."""
    names = (StreamAddress.parse(stream.stream).stream for stream in listing.streams)
    return "\n".join(names) or tables.NOTHING


_LISTING: list[TableColumn[ListingResponse]] = [
    TableColumn(
        heading="equipment", cell=lambda listing: f"{listing.organisation}/{listing.equipment}"
    ),
    *tables.fields(ListingResponse, "name", "kind"),
    TableColumn(heading="streams", cell=_streams),
    TableColumn(heading="sample", cell=lambda listing: "yes" if listing.sample else "no"),
]
