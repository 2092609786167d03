"""The clock of a run: ticks to its members, and their answers.  Pure.

A run in a space `run-<id>` has a time of its own, which one coordinator sets, a quantum at a time.
It sends every member a tick that names the batches of the quantum; the member works them off, and
answers with the batches that it published itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from broker.clock import ns_of, text_of
from broker.errors import Corrupt, Invalid
from broker.namespace import StreamAddress
from broker.wire import WIRE_VERSION, json_object

COORDINATOR = "coordinator"
CLOCK = "clock"
JOIN = 0
"""The number of the quantum of joining, which has no batches: its tick names the run's start."""

Positions = Mapping[StreamAddress, Mapping[str, int]]
"""The last batches of streams: stream -> epoch -> seq."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """A quantum that a member may work off.

    quantum: counted from 1; JOIN tells the start alone.  until_ns: its end, ns since 1970, the
    instant that the clock shows after it; for JOIN the start of the run.  within_s: real time that
    the member has for its answer.  last: last batches of the streams that have new ones for it.
    """

    quantum: int
    until_ns: int
    within_s: float
    last: Positions = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """A member's answer to a tick: it waits again, and its batches are at the broker.

    quantum: of the tick; None if it asks for the clock, before it knows of a tick.  last: its own
    last batches, of the streams that it has published.  missing: batches that the tick named and
    that have not arrived.  busy: the place where the program works still, if this is no answer yet.
    is_leaving: the program has closed its connection, and takes no further tick.
    """

    quantum: int | None
    last: Positions = field(default_factory=dict)
    missing: Positions = field(default_factory=dict)
    busy: str = ""
    is_leaving: bool = False


def clock_stream(organisation: str) -> StreamAddress:
    """The stream that an organisation's machine must write in a run to be the run's coordinator."""
    return StreamAddress(organisation, COORDINATOR, CLOCK)


def encode_tick(tick: Tick) -> bytes:
    """Encode a tick as JSON."""
    return orjson.dumps(
        {
            "v": WIRE_VERSION,
            "quantum": tick.quantum,
            "until": text_of(tick.until_ns),
            "within_s": tick.within_s,
            "last": _to_json(tick.last),
        }
    )


def decode_tick(payload: bytes) -> Tick:
    """Decode a tick; raises Corrupt."""
    raw = _versioned(payload, "a tick")
    try:
        return Tick(
            quantum=_count(raw["quantum"], least=JOIN),
            until_ns=ns_of(raw["until"]),
            within_s=_positive(raw["within_s"]),
            last=_positions(raw["last"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError, Invalid) as exc:
        raise Corrupt(f"a malformed tick: {exc}") from exc


def encode_ready(ready: Ready) -> bytes:
    """Encode an answer as JSON."""
    document: dict[str, Any] = {
        "v": WIRE_VERSION,
        "quantum": ready.quantum,
        "last": _to_json(ready.last),
    }
    if ready.missing:
        document["missing"] = _to_json(ready.missing)
    if ready.busy:
        document["busy"] = ready.busy
    if ready.is_leaving:
        document["leaving"] = True
    return orjson.dumps(document)


def decode_ready(payload: bytes) -> Ready:
    """Decode an answer; raises Corrupt."""
    raw = _versioned(payload, "an answer to a tick")
    try:
        quantum = raw["quantum"]
        return Ready(
            quantum=None if quantum is None else _count(quantum, least=JOIN),
            last=_positions(raw["last"]),
            missing=_positions(raw.get("missing", {})),
            busy=str(raw.get("busy", "")),
            is_leaving=bool(raw.get("leaving", False)),
        )
    except (KeyError, TypeError, ValueError, AttributeError, Invalid) as exc:
        raise Corrupt(f"a malformed answer to a tick: {exc}") from exc


def _to_json(positions: Positions) -> dict[str, Mapping[str, int]]:
    return {str(address): epochs for address, epochs in positions.items()}


def _positions(raw: Mapping[str, Mapping[str, Any]]) -> Positions:
    return {
        StreamAddress.parse(address): {epoch: _count(seq, least=1) for epoch, seq in epochs.items()}
        for address, epochs in raw.items()
    }


def _count(value: object, *, least: int) -> int:
    if type(value) is not int or value < least:
        raise ValueError(f"{value!r:.40} is not a number from {least}")
    return value


def _positive(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e9:
        raise ValueError(f"{value!r:.40} is not a time in seconds")
    return float(value)


def _versioned(payload: bytes, what: str) -> dict[str, Any]:
    raw = json_object(payload, what)
    if raw.get("v") != WIRE_VERSION:
        raise Corrupt(f"{what} of wire version {raw.get('v')!r}", hint=f"this reads {WIRE_VERSION}")
    return raw
