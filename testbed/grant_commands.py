"""`testbed grant`: what your organisation gives to others, and ends."""

from typing import Annotated, Any

import typer
from rich.table import Table

from testbed import asking, credentials, running
from testbed.options import Json
from testbed.screen import out, say_json

grant_app = typer.Typer(help="Streams of yours that others may read.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    """Make these commands a part of the one command."""
    app.add_typer(grant_app, name="grant")


@grant_app.command("give")
def grant_give(
    company: Annotated[str, typer.Argument(help="to whom, an organisation's id")],
    streams: Annotated[
        list[str], typer.Argument(help="[space:]organisation/equipment/stream, one or more")
    ],
    purpose: Annotated[str, typer.Option(help="what for")] = "",
    expires_in_s: Annotated[float | None, typer.Option(help="seconds until it ends")] = None,
    json: Json = False,
) -> None:
    """Let a company read streams of yours, from now on."""

    async def go() -> Any:
        listed = [credentials.entry(one) for one in streams]
        body = {"company": company, "streams": listed, "purpose": purpose}
        answer = await asking.ask("POST", "/grants", json=body | {"expires_in_s": expires_in_s})
        return answer["items"]

    made = running.run(go())
    say_json(made) if json else _show(made)


@grant_app.command("list")
def grant_list(json: Json = False) -> None:
    """What your organisation gave and got."""
    found = running.run(asking.ask("GET", "/grants"))["items"]
    say_json(found) if json else _show(found)


@grant_app.command("revoke")
def grant_revoke(number: Annotated[int, typer.Argument(help="as `list` shows it")]) -> None:
    """End a grant at once; who reads under it is cut off."""
    running.run(asking.ask("DELETE", f"/grants/{number}"))
    out.print(f"grant {number} is revoked")


def _show(found: Any) -> None:
    rows = Table("id", "company", "stream", "state", "until", "purpose")
    for one in found:
        stream = f"{one['space']}:{one['stream']}"
        until = one["until"] or "for ever"
        rows.add_row(str(one["id"]), one["company"], stream, one["state"], until, one["purpose"])
    out.print(rows)
