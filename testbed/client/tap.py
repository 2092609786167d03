"""`testbed tap`: a stream as it comes."""

from collections.abc import Callable
from dataclasses import asdict

import orjson
from rich.console import Console

from broker import clock, codec
from broker.batch import QUALITIES
from broker.namespace import StreamAddress
from testbed_sdk import PrototypeSettings, Received, connect
from testbed_sdk.connection import from_environment


async def tap(stream: str, show: Callable[[Received], None]) -> None:
    """Show every batch until cancelled."""
    found, bus = from_environment()
    settings = PrototypeSettings(
        api=found.api, space=found.space, inputs={"tap": StreamAddress.parse(stream)}, outputs={}
    )
    async with connect(settings, bus) as testbed:
        async for received in testbed.input("tap"):
            show(received)


def as_json(say: Callable[[object], None]) -> Callable[[Received], None]:
    """A line of JSON a batch, as on the wire; before it one that says which never came."""

    def show(received: Received) -> None:
        if received.missed is not None:
            say({"missed": asdict(received.missed)})
        say(orjson.loads(codec.encode(received.batch)))

    return show


def table(out: Console) -> Callable[[Received], None]:
    """A line a time stamp, with every signal that has a value there."""

    def show(received: Received) -> None:
        if received.missed:
            missed = received.missed
            out.print(f"missed batches {missed.first} to {missed.last}", style="yellow")
        for gap in received.gaps:
            span = f"{clock.text_of(gap.from_ns)} to {clock.text_of(gap.to_ns)}"
            out.print(
                f"gap {span}: {gap.cause} {', '.join(gap.signals) or 'all signals'}",
                style="yellow",
            )
        rows: dict[int, list[str]] = {}
        for name, series in received.batch.series():
            unit = received.spec.signal(name).unit
            for time_ns, value, code in zip(*(one.tolist() for one in series), strict=True):
                shown = f"{value:g}" if isinstance(value, float) else str(value)
                note = "" if code == 0 else f" ({QUALITIES[code]})"
                rows.setdefault(time_ns, []).append(
                    f"{name} {shown}{'' if unit == '1' else ' ' + unit}{note}"
                )
        for time_ns in sorted(rows):
            out.print(f"{clock.text_of(time_ns)[:-7]}Z  {'  '.join(rows[time_ns])}")

    return show
