"""Encodes and decodes the messages other than batches: spec, health and mark.

A spec is the schema of a stream; a health is the freshness of a stream; a mark lists the batches
that the recorder holds.  `broker.codec` encodes batches.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

import orjson

from broker.clock import ns_of, text_of
from broker.errors import Corrupt, Invalid
from broker.namespace import StreamAddress
from broker.streams import FUTURE_LIMIT_S, PAST_LIMIT_S, Dtype, Signal, StreamSpec, Trigger
from broker.wire import WIRE_VERSION, json_object


class Freshness(StrEnum):
    """Freshness of a stream."""

    FRESH = "fresh"
    STALE = "stale"


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """Freshness of a stream as its publisher states it, and for how long.

    at_ns, valid_until_ns: from when and until when it is valid, by the publisher's clock; the time
    between them counts from its arrival, by the clock of who receives it.  last_ns: time stamp of
    the newest sample, None before the first.  alarms: sentences for a human.
    """

    state: Freshness
    at_ns: int
    valid_until_ns: int
    last_ns: int | None = None
    alarms: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Held:
    """Sequence numbers of one epoch of a stream that the recorder holds.

    upto: every number from 1 to this one is held.  beyond: further (first, last) pairs, both
    included, ascending, not touching one another.
    """

    upto: int
    beyond: tuple[tuple[int, int], ...] = ()

    def __contains__(self, seq: int) -> bool:
        return seq <= self.upto or any(first <= seq <= last for first, last in self.beyond)

    @property
    def greatest(self) -> int:
        """The greatest held number; 0 for none."""
        return self.beyond[-1][1] if self.beyond else self.upto

    @property
    def ranges(self) -> tuple[tuple[int, int], ...]:
        """All held sequence numbers as (first, last) pairs."""
        return ((1, self.upto), *self.beyond) if self.upto else self.beyond

    @classmethod
    def from_ranges(cls, ranges: Iterable[tuple[int, int]]) -> Self:
        """Build from (first, last) pairs in any order; overlapping or touching ones are joined."""
        joined = [(0, 0)]
        for first, last in sorted(ranges):
            if first <= joined[-1][1] + 1:
                joined[-1] = (joined[-1][0], max(last, joined[-1][1]))
            else:
                joined.append((first, last))
        return cls(joined[0][1], tuple(joined[1:]))

    def including(self, seqs: Iterable[int]) -> Self:
        """Return a copy in which these sequence numbers are held too."""
        return self.from_ranges([*self.ranges, *((seq, seq) for seq in seqs)])


@dataclass(frozen=True, slots=True)
class Mark:
    """Batches that the recorder holds of one publisher: stream -> epoch -> held."""

    streams: Mapping[str, Mapping[str, Held]]


def encode_health(health: Health) -> bytes:
    """Encode a health as JSON."""
    return orjson.dumps(
        {
            "v": WIRE_VERSION,
            "state": health.state,
            "at": text_of(health.at_ns),
            "valid_until": text_of(health.valid_until_ns),
            "last": None if health.last_ns is None else text_of(health.last_ns),
            "alarms": health.alarms,
        }
    )


def decode_health(payload: bytes) -> Health:
    """Decode a health; raises Corrupt."""
    return health_from_json(_versioned(payload, "a health"))


def health_from_json(raw: Mapping[str, Any]) -> Health:
    """Build a health from its JSON object, of the bus or the API; raises Corrupt."""
    try:
        last = raw.get("last")
        return Health(
            state=Freshness(raw["state"]),
            at_ns=ns_of(raw["at"]),
            valid_until_ns=ns_of(raw["valid_until"]),
            last_ns=None if last is None else ns_of(last),
            alarms=tuple(str(alarm) for alarm in raw.get("alarms", [])),
        )
    except (KeyError, TypeError, ValueError, Invalid) as exc:
        raise Corrupt(f"a malformed health: {exc}") from exc


def encode_mark(mark: Mark) -> bytes:
    """Encode a mark as JSON."""
    streams = {
        stream: {
            epoch: {"upto": held.upto, "beyond": held.beyond} for epoch, held in epochs.items()
        }
        for stream, epochs in mark.streams.items()
    }
    return orjson.dumps({"v": WIRE_VERSION, "streams": streams})


def decode_mark(payload: bytes) -> Mark:
    """Decode a mark; raises Corrupt."""
    raw = _versioned(payload, "a mark")
    try:
        return Mark(
            {
                stream: {epoch: _held(held) for epoch, held in epochs.items()}
                for stream, epochs in raw["streams"].items()
            }
        )
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise Corrupt(f"a malformed mark: {exc}") from exc


def _held(raw: Mapping[str, Any]) -> Held:
    upto, beyond = raw["upto"], tuple((first, last) for first, last in raw["beyond"])
    numbers = [upto, *(number for pair in beyond for number in pair)]
    if any(type(number) is not int for number in numbers) or upto < 0 or numbers != sorted(numbers):
        raise ValueError(f"upto {upto!r} beyond {raw['beyond']!r:.80}")
    return Held(upto, beyond)


def spec_to_json(spec: StreamSpec) -> dict[str, Any]:
    """Return a spec as a JSON object."""
    return {
        "v": WIRE_VERSION,
        "stream": str(spec.address),
        "version": spec.version,
        "trigger": spec.trigger,
        "period_s": spec.period_s,
        "max_silence_s": spec.max_silence_s,
        "past_limit_s": spec.past_limit_s,
        "future_limit_s": spec.future_limit_s,
        "description": spec.description,
        "signals": [
            {
                "name": signal.name,
                "dtype": signal.dtype,
                "shape": signal.shape,
                "unit": signal.unit,
                "low": signal.low,
                "high": signal.high,
                "resolution": signal.resolution,
                "description": signal.description,
                "node": signal.node,
            }
            for signal in spec.signals
        ],
    }


def encode_spec(spec: StreamSpec) -> bytes:
    """Encode a spec as JSON."""
    return orjson.dumps(spec_to_json(spec))


def decode_spec(payload: bytes) -> StreamSpec:
    """Decode a spec; raises Corrupt."""
    return spec_from_json(_versioned(payload, "a spec"))


def spec_from_json(raw: Mapping[str, Any]) -> StreamSpec:
    """Build a spec from its JSON object, ignoring unknown keys; raises Corrupt."""
    try:
        return StreamSpec(
            address=StreamAddress.parse(raw["stream"]),
            signals=tuple(_signal(signal) for signal in raw["signals"]),
            version=int(raw["version"]),
            trigger=Trigger(raw["trigger"]),
            period_s=float(raw.get("period_s", 0.0)),
            max_silence_s=float(raw.get("max_silence_s", 10.0)),
            past_limit_s=float(raw.get("past_limit_s", PAST_LIMIT_S)),
            future_limit_s=float(raw.get("future_limit_s", FUTURE_LIMIT_S)),
            description=str(raw.get("description", "")),
        )
    except (KeyError, TypeError, ValueError, AttributeError, Invalid) as exc:
        raise Corrupt(f"a malformed spec: {exc}") from exc


def _signal(raw: Mapping[str, Any]) -> Signal:
    return Signal(
        name=raw["name"],
        dtype=Dtype(raw["dtype"]),
        unit=str(raw.get("unit", "1")),
        low=_number(raw.get("low")),
        high=_number(raw.get("high")),
        resolution=_number(raw.get("resolution")),
        description=str(raw.get("description", "")),
        node=str(raw.get("node", "")),
        shape=tuple(raw.get("shape", ())),
    )


def _number(raw: object) -> float | None:
    return None if raw is None else float(raw)  # type: ignore[arg-type]  # TypeError is caught above


def _versioned(payload: bytes, what: str) -> dict[str, Any]:
    raw = json_object(payload, what)
    if raw.get("v") != WIRE_VERSION:
        raise Corrupt(f"{what} of wire version {raw.get('v')!r}", hint=f"this reads {WIRE_VERSION}")
    return raw
