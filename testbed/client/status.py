"""`testbed status`: how the streams are, on one screen for whoever has to act."""

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from broker.clock import NS_PER_S, Clock, ns_of
from testbed.client import api

_AGES = ((86_400.0, "d"), (3_600.0, "h"), (60.0, "min"))


async def status(within_s: float) -> Any:
    """What the API says of the streams that the credential sees."""
    return await api.ask("GET", "/status", params={"within_s": within_s})


def show(told: Any, out: Console, clock: Clock) -> None:
    """What is wrong first: the parts, then a row a stream, the worst on top."""
    if told["interrupted"]:
        out.print(f"recording is interrupted: {told['interrupted']}", style="red")
    if not told["broker"]:
        out.print("the API is not connected to the broker", style="red")
    streams = told["streams"]
    rows = Table("stream", "space", "state", "newest", "gaps", "dead letters", "alarms")
    for one in sorted(streams, key=_badness, reverse=True):
        rows.add_row(
            one["stream"],
            one["space"],
            Text(one["state"] or "-", style="red" if one["state"] == "stale" else ""),
            _age(one["last"], clock.now_ns()),
            _count(one["gaps"]),
            _count(one["dead_letters"]),
            Text("\n".join(one["alarms"]), style="yellow"),
        )
    out.print(rows)
    stale = sum(one["state"] == "stale" for one in streams)
    out.print(f"{len(streams)} streams, {stale} stale; gaps and dead letters since {told['since']}")


def _badness(one: Any) -> tuple[bool, bool, int, int]:
    return (one["state"] == "stale", bool(one["alarms"]), one["gaps"], one["dead_letters"])


def _count(number: int) -> Text:
    return Text(f"{number:,}", style="yellow" if number else "")


def _age(last: str | None, now_ns: int) -> str:
    """How long ago, in the largest unit that gives a number of one or more."""
    if last is None:
        return "never"
    seconds = (now_ns - ns_of(last)) / NS_PER_S
    for size, unit in _AGES:
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"
