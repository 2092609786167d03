"""`testbed grant`: what companies ask for, and what owners answer and end."""

from typing import Annotated, Any

import typer
from rich.table import Table

from testbed.client import api, credentials
from testbed.terminal import run
from testbed.terminal.options import Json
from testbed.terminal.screen import out, say_json

grant_app = typer.Typer(help="Who may read streams of others, and why.", no_args_is_help=True)

DAY_S = 86_400

Number = Annotated[int, typer.Argument(help="as `list` shows it")]
Numbers = Annotated[list[int], typer.Argument(help="as `list` shows them, one or more")]
Streams = Annotated[
    list[str], typer.Argument(help="[space:]organisation/equipment/stream, one or more")
]
Begin = Annotated[str | None, typer.Option("--from", help="instant; now if left out")]
Until = Annotated[str | None, typer.Option(help="instant at which it ends")]
Days = Annotated[float | None, typer.Option(min=0.001, help="or days from now until it ends")]
Reason = Annotated[str, typer.Option(help="why; the company reads it")]


def add_to(app: typer.Typer) -> None:
    """Make these commands a part of the one command."""
    app.add_typer(grant_app, name="grant")


@grant_app.command("ask")
def grant_ask(
    streams: Streams,
    purpose: Annotated[str, typer.Option("--for", help="what for, in a sentence")],
    begin: Begin = None,
    until: Until = None,
    days: Days = None,
    json: Json = False,
) -> None:
    """Ask for streams of an equipment that is listed to you; a grant each, once it is approved."""

    async def go() -> Any:
        listed = [credentials.entry(one) for one in streams]
        body = {"streams": listed, "purpose": purpose} | _span(begin, until, days)
        return await api.ask("POST", "/requests", json=body)

    asked = run.run(go())["items"]
    say_json(asked) if json else _say(asked)


@grant_app.command("give")
def grant_give(
    company: Annotated[str, typer.Argument(help="to whom, an organisation's id")],
    streams: Streams,
    purpose: Annotated[str, typer.Option(help="what for")] = "",
    expires_in_s: Annotated[float | None, typer.Option(help="seconds until it ends")] = None,
    json: Json = False,
) -> None:
    """Let a company read streams of yours unasked, from now on."""

    async def go() -> Any:
        listed = [credentials.entry(one) for one in streams]
        body = {"company": company, "streams": listed, "purpose": purpose}
        return await api.ask("POST", "/grants", json=body | {"expires_in_s": expires_in_s})

    made = run.run(go())["items"]
    say_json(made) if json else _say(made)


@grant_app.command("list")
def grant_list(
    open_: Annotated[bool, typer.Option("--open", help="only what waits for an answer")] = False,
    json: Json = False,
) -> None:
    """What your organisation gave and got, and what is asked for."""
    found = run.run(api.everything("/grants", limit=1_000))
    shown = [one for one in found if one["state"] == "asked" or not open_]
    say_json(shown) if json else _show(shown)


@grant_app.command("show")
def grant_show(number: Number, json: Json = False) -> None:
    """One grant in a sentence: who reads what, in which space, until when and why."""
    found = run.run(api.ask("GET", f"/grants/{number}"))
    say_json(found) if json else _say([found])


@grant_app.command("approve")
def grant_approve(
    numbers: Numbers,
    begin: Begin = None,
    until: Until = None,
    days: Days = None,
    json: Json = False,
) -> None:
    """Grant what was asked for; with --until or --days for less time than that."""
    done = run.run(_each(numbers, "approval", _span(begin, until, days)))
    say_json(done) if json else _say(done)


@grant_app.command("refuse")
def grant_refuse(numbers: Numbers, reason: Reason = "", json: Json = False) -> None:
    """Refuse what was asked for."""
    done = run.run(_each(numbers, "refusal", {"reason": reason}))
    say_json(done) if json else _say(done)


@grant_app.command("withdraw")
def grant_withdraw(numbers: Numbers, json: Json = False) -> None:
    """Give grants back, or take back what you asked for."""
    done = run.run(_each(numbers, "withdrawal", None))
    say_json(done) if json else _say(done)


@grant_app.command("revoke")
def grant_revoke(number: Number) -> None:
    """End a grant at once; who reads under it is cut off."""
    run.run(api.ask("DELETE", f"/grants/{number}"))
    out.print(f"grant {number} is revoked")


async def _each(numbers: list[int], what: str, body: Any) -> list[Any]:
    """The same of several grants, one after the other, until one is refused."""
    async with api.door() as door:
        return [
            await door.request("POST", f"/grants/{number}/{what}", json=body) for number in numbers
        ]


def _span(begin: str | None, until: str | None, days: float | None) -> dict[str, Any]:
    given = {
        "from": begin,
        "until": until,
        "expires_in_s": None if days is None else days * DAY_S,
    }
    return {name: value for name, value in given.items() if value is not None}


def _say(found: list[Any]) -> None:
    for one in found:
        out.print(f"{one['id']}  {one['sentence']}")


def _show(found: list[Any]) -> None:
    rows = Table("id", "company", "stream", "state", "until", "purpose")
    for one in found:
        stream = f"{one['space']}:{one['stream']}"
        state = "paused" if one["paused"] else one["state"]
        until = one["until"] or "for ever"
        rows.add_row(str(one["id"]), one["company"], stream, state, until, one["purpose"])
    out.print(rows)
