"""`testbed listing`, `pause`, `resume` and `access`: what others see, and how it is stopped."""

from typing import Annotated, Any

import typer
from rich.table import Table

from broker.errors import Invalid
from broker.namespace import EquipmentAddress
from testbed.client import api, credentials
from testbed.terminal import run
from testbed.terminal.options import Json
from testbed.terminal.screen import out, say_json

listing_app = typer.Typer(help="To whom equipment exists.", no_args_is_help=True)

Equipment = Annotated[str, typer.Argument(help="organisation/equipment")]
Company = Annotated[str | None, typer.Option(help="all grants to this organisation")]
OfEquipment = Annotated[
    str | None, typer.Option("--equipment", help="all grants of this organisation/equipment")
]


def add_to(app: typer.Typer) -> None:
    """Make these commands a part of the one command."""
    app.add_typer(listing_app, name="listing")
    app.command("pause")(pause)
    app.command("resume")(resume)
    app.command("access")(access)


@listing_app.command("set")
def listing_set(
    equipment: Equipment,
    to: Annotated[
        list[str] | None, typer.Option(help="an organisation's id; any number of times")
    ] = None,
    everybody: Annotated[bool, typer.Option("--everybody", help="all members")] = False,
    nobody: Annotated[bool, typer.Option("--nobody", help="end the listing")] = False,
    terms: Annotated[str, typer.Option(help="what you ask of whoever uses it")] = "",
    sample: Annotated[
        str | None, typer.Option(help="[space:]organisation/equipment/stream to show a part of")
    ] = None,
    sample_from: Annotated[str | None, typer.Option(help="instant, included")] = None,
    sample_to: Annotated[str | None, typer.Option(help="instant, not included")] = None,
    json: Json = False,
) -> None:
    """List an equipment to organisations, to everybody, or to nobody; grants are not touched."""

    async def go() -> Any:
        path = f"/equipment/{EquipmentAddress.parse(equipment)}/listing"
        if (bool(to), everybody, nobody).count(True) != 1:
            raise Invalid("to whom is not said", hint="--to ORGANISATION, --everybody or --nobody")
        if nobody:
            await api.ask("DELETE", path)
            return await api.ask("GET", path)
        shown = _sample(sample, sample_from, sample_to)
        body = {"everybody": everybody, "organisations": to or [], "terms": terms, "sample": shown}
        return await api.ask("PUT", path, json=body)

    found = run.run(go())
    say_json(found) if json else _show(found)


@listing_app.command("show")
def listing_show(equipment: Equipment, json: Json = False) -> None:
    """How an equipment is listed: what it is, its streams and terms, and for its owner to whom."""

    async def go() -> Any:
        return await api.ask("GET", f"/equipment/{EquipmentAddress.parse(equipment)}/listing")

    found = run.run(go())
    say_json(found) if json else _show(found)


@listing_app.command("list")
def listing_list(json: Json = False) -> None:
    """What is listed to you."""
    found = run.run(api.everything("/listings", limit=500))
    say_json(found) if json else _table(found)


def pause(company: Company = None, equipment: OfEquipment = None, json: Json = False) -> None:
    """Stop all grants at once: of a company, of an equipment, or all that you gave."""
    body = _about(company, equipment)
    made = run.run(api.ask("POST", "/pauses", json=body))
    say_json(made) if json else out.print(f"{_words(body)} are paused: nobody reads under them")


def resume(company: Company = None, equipment: OfEquipment = None, json: Json = False) -> None:
    """Let grants count again that were paused in the same words."""
    about = _about(company, equipment)
    done = run.run(api.ask("DELETE", "/pauses", params=about))
    say_json(done) if json else out.print(f"{_words(about)} count again")


def access(
    equipment: Equipment,
    at: Annotated[str | None, typer.Option(help="instant; now if left out")] = None,
    begin: Annotated[str | None, typer.Option("--from", help="or a span: from here")] = None,
    end: Annotated[str | None, typer.Option("--to", help="to here; now if left out")] = None,
    json: Json = False,
) -> None:
    """Who could read an equipment's streams, now or at any past moment, and who did."""
    given = {"at": at, "from": begin, "to": end}
    params = {name: value for name, value in given.items() if value is not None}

    async def go() -> Any:
        path = f"/equipment/{EquipmentAddress.parse(equipment)}/access"
        return await api.ask("GET", path, params=params)

    found = run.run(go())
    say_json(found) if json else _show_access(found)


def _sample(stream: str | None, begin: str | None, end: str | None) -> dict[str, Any] | None:
    if stream is None and begin is None and end is None:
        return None
    if stream is None or begin is None or end is None:
        raise Invalid("the sample is not whole", hint="--sample, --sample-from and --sample-to")
    return credentials.entry(stream) | {"from": begin, "to": end}


def _about(company: str | None, equipment: str | None) -> dict[str, str]:
    given = {"company": company, "equipment": equipment}
    return {name: value for name, value in given.items() if value is not None}


def _words(about: dict[str, str]) -> str:
    to = f" to {about['company']}" if "company" in about else ""
    of = f" of {about['equipment']}" if "equipment" in about else ""
    return f"all grants{to}{of}" if about else "all your grants"


def _show(one: Any) -> None:
    place = ", ".join(one["site"].values())
    lines = {
        "equipment": f"{one['organisation']}/{one['equipment']} ({one['kind']})",
        "name": one["name"],
        "description": one["description"],
        "site": place,
        "terms": one["terms"],
        "listed to": _to(one),
    }
    for name, text in lines.items():
        if text:
            out.print(f"{name:<12}{text}")
    for stream in one["streams"]:
        signals = ", ".join(f"{name} [{unit}]" for name, unit in stream["signals"].items())
        out.print(f"{'stream':<12}{stream['stream']}: {signals}")
    if sample := one["sample"]:
        span = f"{sample['space']}:{sample['stream']} {sample['from']} to {sample['to']}"
        out.print(f"{'sample':<12}{span}")


def _to(one: Any) -> str:
    if one["everybody"]:
        return "everybody"
    return ", ".join(one["listed_to"]) or "nobody" if "listed_to" in one else ""


def _table(found: list[Any]) -> None:
    rows = Table("equipment", "name", "kind", "streams", "sample")
    for one in found:
        address = f"{one['organisation']}/{one['equipment']}"
        streams = "\n".join(each["stream"].rpartition("/")[2] for each in one["streams"])
        rows.add_row(address, one["name"], one["kind"], streams, "yes" if one["sample"] else "no")
    out.print(rows)


def _show_access(found: Any) -> None:
    could = Table("who could read", "stream", "from", "until", "grant", "purpose")
    for one in found["could"]:
        could.add_row(
            f"{one['organisation']}: {one['principal']} ({one['kind']})",
            f"{one['space']}:{one['stream']}",
            one["from"][:19],
            one["until"][:19] if one["until"] else "ended by nobody yet",
            str(one["grant"] or "its own"),
            one["purpose"] or "",
        )
    out.print(could)
    did = Table("who did", "stream", "when", "how", "how much")
    for one in found["did"]["http"]:
        whose, stream = _whose(one)
        did.add_row(whose, stream, one["day"], f"HTTP {one['way']}", f"{one['times']} times")
    for one in found["did"]["mqtt"]:
        whose, stream = _whose(one)
        much = f"at most {one['batches']} batches in {one['minutes']} min"
        did.add_row(whose, stream, one["from"][:19], "bus", much)
    out.print(did)


def _whose(one: Any) -> tuple[str, str]:
    return f"{one['organisation']}: {one['principal']}", f"{one['space']}:{one['stream']}"
