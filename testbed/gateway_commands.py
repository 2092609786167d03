"""`testbed gateway check` and `browse`: what a factory engineer does before a machine goes on the
bus.
"""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from broker.errors import Taken
from broker.namespace import EquipmentAddress
from gateway import browse as browsing
from gateway import check as checking
from gateway import mapping as mappings


async def check(path: Path, show: Callable[[Any], None], *, as_json: bool) -> bool:
    """Print every finding; True if none is an error."""
    findings = await checking.check(mappings.load(path))
    if as_json:
        show([asdict(one) for one in findings])
    elif not findings:
        show(f"{path}: nothing is wrong")
    else:
        for one in findings:
            show(str(one))
    return not any(one.severity is checking.Severity.ERROR for one in findings)


async def browse(url: str, write: Path | None, equipment: str, out: Console) -> None:
    """Print the tree; with `write`, a first mapping as well."""
    address = EquipmentAddress.parse(equipment)
    for line in await browsing.tree(url):
        out.print(line, markup=False)
    if write is None:
        return
    text = await browsing.starting_mapping(url, address.organisation, address.equipment)
    try:
        with write.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as exc:
        raise Taken(f"{write} is there already", hint="name a new file") from exc
    out.print(f"wrote {write}; edit it, then: testbed gateway check {write}", markup=False)
