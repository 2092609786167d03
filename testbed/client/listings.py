"""Set, fetch and print the listings of equipment."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from broker.errors import Invalid
from broker.namespace import EquipmentAddress
from testbed.client import api, credentials


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


async def store(equipment: str, audience: Audience, terms: str, sample: SampleSpan) -> Any:
    """List an equipment, or end its listing; the listing as it is then."""
    path = f"/equipment/{EquipmentAddress.parse(equipment)}/listing"
    if (bool(audience.organisations), audience.everybody, audience.nobody).count(True) != 1:
        raise Invalid("to whom is not said", hint="--to ORGANISATION, --everybody or --nobody")
    if audience.nobody:
        await api.request("DELETE", path)
        return await api.request("GET", path)
    body = {
        "everybody": audience.everybody,
        "organisations": list(audience.organisations),
        "terms": terms,
        "sample": sample.body,
    }
    return await api.request("PUT", path, json=body)


async def fetch(equipment: str) -> Any:
    """The listing of an equipment."""
    return await api.request("GET", f"/equipment/{EquipmentAddress.parse(equipment)}/listing")


def print_listing(listing: Any, out: Console) -> None:
    """Print an equipment: its names, terms, streams and example, and to whom it is listed."""
    lines = {
        "equipment": f"{listing['organisation']}/{listing['equipment']} ({listing['kind']})",
        "name": listing["name"],
        "description": listing["description"],
        "site": ", ".join(listing["site"].values()),
        "terms": listing["terms"],
        "listed to": _audience(listing),
    }
    for label, text in lines.items():
        if text:
            out.print(f"{label:<12}{text}")
    for stream in listing["streams"]:
        signals = ", ".join(f"{name} [{unit}]" for name, unit in stream["signals"].items())
        out.print(f"{'stream':<12}{stream['stream']}: {signals}")
    if sample := listing["sample"]:
        span = f"{sample['space']}:{sample['stream']} {sample['from']} to {sample['to']}"
        out.print(f"{'sample':<12}{span}")


def print_table(listings: Sequence[Any], out: Console) -> None:
    """Print a row for each listing."""
    table = Table("equipment", "name", "kind", "streams", "sample")
    for listing in listings:
        table.add_row(
            f"{listing['organisation']}/{listing['equipment']}",
            listing["name"],
            listing["kind"],
            "\n".join(stream["stream"].rpartition("/")[2] for stream in listing["streams"]),
            "yes" if listing["sample"] else "no",
        )
    out.print(table)


def _audience(listing: Any) -> str:
    """To whom an equipment is listed, in words; empty where only its owner may see that."""
    if listing["everybody"]:
        return "everybody"
    return ", ".join(listing["listed_to"]) or "nobody" if "listed_to" in listing else ""
