"""Fetch and print the state of all streams, the worst first."""

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from broker.clock import DAY_S, HOUR_S, NS_PER_S, Clock, ns_of
from testbed.client import api

_AGES = ((DAY_S, "d"), (HOUR_S, "h"), (60.0, "min"))


async def fetch(within_s: float) -> Any:
    """The state of the streams that the caller may read; gaps are counted over `within_s`."""
    return await api.request("GET", "/status", params={"within_s": within_s})


def print_status(status: Any, out: Console, clock: Clock) -> None:
    """Print what is wrong with recorder and broker, then a row for each stream, the worst first."""
    if status["interrupted"]:
        out.print(f"recording is interrupted: {status['interrupted']}", style="red")
    if not status["broker"]:
        out.print("the API is not connected to the broker", style="red")
    for channel in status["notices"]:
        if channel["failed"]:
            out.print(_failing(channel), style="red")
    streams = status["streams"]
    table = Table("stream", "space", "state", "newest", "gaps", "dead letters", "alarms")
    for stream in sorted(streams, key=_severity, reverse=True):
        table.add_row(
            stream["stream"],
            stream["space"],
            Text(stream["state"] or "-", style="red" if stream["state"] == "stale" else ""),
            _age(stream["last"], clock.now_ns()),
            _count(stream["gaps"]),
            _count(stream["dead_letters"]),
            Text("\n".join(stream["alarms"]), style="yellow"),
        )
    out.print(table)
    stale = sum(stream["state"] == "stale" for stream in streams)
    since = f"gaps and dead letters since {status['since']}"
    out.print(f"{len(streams)} streams, {stale} stale; {since}")


def _failing(channel: Any) -> str:
    """A channel whose notices do not arrive, in a sentence."""
    return (
        f"notices by {channel['channel']} do not arrive: {channel['reason']}; {channel['waiting']}"
        f" wait, the oldest since {channel['since'][:19]}Z"
    )


def _severity(stream: Any) -> tuple[bool, bool, int, int]:
    """The sort key of a stream: stale, alarms, gaps, dead letters."""
    return (
        stream["state"] == "stale",
        bool(stream["alarms"]),
        stream["gaps"],
        stream["dead_letters"],
    )


def _count(number: int) -> Text:
    return Text(f"{number:,}", style="yellow" if number else "")


def _age(last: str | None, now_ns: int) -> str:
    """The time since an instant, in the largest unit that gives a number of 1 or more."""
    if last is None:
        return "never"
    seconds = (now_ns - ns_of(last)) / NS_PER_S
    for size, unit in _AGES:
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"
