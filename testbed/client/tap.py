"""Print the batches of a stream as they arrive."""

from collections.abc import Callable
from dataclasses import asdict

import orjson
from rich.console import Console

from broker import clock, codec
from broker.batch import QUALITIES
from broker.namespace import StreamAddress, checked_space
from broker.settings import BusSettings
from testbed_sdk import PrototypeSettings, Received, connect
from testbed_sdk.connection import from_environment

MOST_ELEMENTS = 5
"""Elements of an array that a line shows."""


async def tap(stream: str, space: str, on_batch: Callable[[Received], None]) -> None:
    """Subscribe to a stream and call `on_batch` with every batch, until cancelled."""
    address, space = StreamAddress.parse(stream), checked_space(space)
    own, bus = from_environment(BusSettings)
    settings = PrototypeSettings(api=own.api, space=space, inputs={"tap": address}, outputs={})
    async with connect(settings, bus) as testbed:
        async for received in testbed.input("tap"):
            on_batch(received)


def json_printer(print_json: Callable[[object], None]) -> Callable[[Received], None]:
    """A function that prints a batch as a line of JSON, after one that names missed batches."""

    def print_batch(received: Received) -> None:
        if received.missed is not None:
            print_json({"missed": asdict(received.missed)})
        print_json(orjson.loads(codec.encode(received.batch)))

    return print_batch


def text_printer(out: Console) -> Callable[[Received], None]:
    """A function that prints a line for each time stamp of a batch, with the signals' values."""

    def print_batch(received: Received) -> None:
        _print_losses(received, out)
        rows: dict[int, list[str]] = {}
        for name, series in received.batch.series():
            unit = received.spec.signal(name).unit
            for time_ns, value, code in zip(*(column.tolist() for column in series), strict=True):
                text = _text(value)
                note = "" if code == 0 else f" ({QUALITIES[code]})"
                rows.setdefault(time_ns, []).append(
                    f"{name} {text}{'' if unit == '1' else ' ' + unit}{note}"
                )
        for time_ns in sorted(rows):
            out.print(f"{clock.text_of(time_ns)[:-7]}Z  {'  '.join(rows[time_ns])}")

    return print_batch


def _text(value: object) -> str:
    """A value in a line; of an array the first elements, the last one, and their number."""
    if not isinstance(value, list):
        return f"{value:g}" if isinstance(value, float) else str(value)
    if len(value) <= MOST_ELEMENTS:
        return f"({', '.join(map(_text, value))})"
    first = ", ".join(map(_text, value[: MOST_ELEMENTS - 1]))
    return f"({first} … {_text(value[-1])}; {len(value)} elements)"


def _print_losses(received: Received, out: Console) -> None:
    """Print the batches that were missed before this one, and the gaps that it reports."""
    if received.missed:
        missed = received.missed
        out.print(f"missed batches {missed.first} to {missed.last}", style="yellow")
    for gap in received.gaps:
        span = f"{clock.text_of(gap.from_ns)} to {clock.text_of(gap.to_ns)}"
        signals = ", ".join(gap.signals) or "all signals"
        out.print(f"gap {span}: {gap.cause} {signals}", style="yellow")
