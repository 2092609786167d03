"""Pause grants, and report who could read an equipment's streams and who did."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from broker.namespace import EquipmentAddress
from testbed.client import api


def pause_body(company: str | None, equipment: str | None) -> dict[str, str]:
    """The API's JSON for a pause: of a company, of an equipment, or of all that the caller gave."""
    fields = {"company": company, "equipment": equipment}
    return {name: value for name, value in fields.items() if value is not None}


def pause_sentence(pause: Mapping[str, str]) -> str:
    """A phrase for the grants that a pause stops."""
    company = f" to {pause['company']}" if "company" in pause else ""
    equipment = f" of {pause['equipment']}" if "equipment" in pause else ""
    return f"all grants{company}{equipment}" if pause else "all your grants"


async def fetch(equipment: str, *, at: str | None, begin: str | None, end: str | None) -> Any:
    """The access report of an equipment, at an instant or for a span; now if all are None."""
    fields = {"at": at, "from": begin, "to": end}
    params = {name: value for name, value in fields.items() if value is not None}
    path = f"/equipment/{EquipmentAddress.parse(equipment)}/access"
    return await api.request("GET", path, params=params)


def print_report(report: Any, out: Console) -> None:
    """Print a table of the rights to read, and one of the reads."""
    could = Table("who could read", "stream", "from", "until", "grant", "purpose")
    for right in report["could"]:
        could.add_row(
            f"{right['organisation']}: {right['principal']} ({right['kind']})",
            f"{right['space']}:{right['stream']}",
            right["from"][:19],
            right["until"][:19] if right["until"] else "ended by nobody yet",
            str(right["grant"] or "its own"),
            right["purpose"] or "",
        )
    out.print(could)
    did = Table("who did", "stream", "when", "how", "how much")
    for read in report["did"]["http"]:
        reader, stream = _reader_and_stream(read)
        did.add_row(reader, stream, read["day"], f"HTTP {read['way']}", f"{read['times']} times")
    for read in report["did"]["mqtt"]:
        reader, stream = _reader_and_stream(read)
        amount = f"at most {read['batches']} batches in {read['minutes']} min"
        did.add_row(reader, stream, read["from"][:19], "bus", amount)
    out.print(did)


def _reader_and_stream(read: Any) -> tuple[str, str]:
    return f"{read['organisation']}: {read['principal']}", f"{read['space']}:{read['stream']}"
