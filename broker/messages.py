"""The states a part tells the others: spec, health and mark, as JSON and back.

A spec is what a stream's columns mean; a health is how fresh a stream is; a mark is what the
recorder holds.  Batches are written by `broker.codec`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

import orjson

from broker.clock import ns_of, text_of
from broker.codec import WIRE_VERSION, json_object
from broker.errors import Corrupt, Invalid
from broker.namespace import StreamAddress
from broker.streams import Dtype, Signal, StreamSpec, Trigger


class Freshness(StrEnum):
    """What a health says of a stream."""

    FRESH = "fresh"
    STALE = "stale"


@dataclass(frozen=True, slots=True)
class Health:
    """How fresh a stream is, in the words of its publisher; after `valid_until_ns` it is stale
    whatever it says.

    last_ns: time stamp of the newest sample, None before the first.  alarms: what a human should
    know, in sentences.
    """

    state: Freshness
    valid_until_ns: int
    last_ns: int | None = None
    alarms: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Held:
    """What the recorder holds of one epoch of a stream: 1..upto without a hole, and the ranges
    beyond it.

    beyond: (first, last) pairs, both included, ascending, not touching one another.
    """

    upto: int
    beyond: tuple[tuple[int, int], ...] = ()

    def __contains__(self, seq: int) -> bool:
        return seq <= self.upto or any(first <= seq <= last for first, last in self.beyond)

    @property
    def ranges(self) -> tuple[tuple[int, int], ...]:
        """All that is held as (first, last) pairs."""
        return ((1, self.upto), *self.beyond) if self.upto else self.beyond

    @classmethod
    def from_ranges(cls, ranges: Iterable[tuple[int, int]]) -> Self:
        """From (first, last) pairs in any order; what overlaps or touches becomes one."""
        joined = [(0, 0)]
        for first, last in sorted(ranges):
            if first <= joined[-1][1] + 1:
                joined[-1] = (joined[-1][0], max(last, joined[-1][1]))
            else:
                joined.append((first, last))
        return cls(joined[0][1], tuple(joined[1:]))

    def including(self, seqs: Iterable[int]) -> Self:
        """The same with these sequence numbers held too."""
        return self.from_ranges([*self.ranges, *((seq, seq) for seq in seqs)])


@dataclass(frozen=True, slots=True)
class Mark:
    """What the recorder holds of each stream of one publisher: stream -> epoch -> held."""

    streams: Mapping[str, Mapping[str, Held]]


def encode_health(health: Health) -> bytes:
    """A health as JSON."""
    return orjson.dumps(
        {
            "v": WIRE_VERSION,
            "state": health.state,
            "valid_until": text_of(health.valid_until_ns),
            "last": None if health.last_ns is None else text_of(health.last_ns),
            "alarms": health.alarms,
        }
    )


def decode_health(payload: bytes) -> Health:
    """Read a health; raises Corrupt."""
    return health_from_json(_versioned(payload, "a health"))


def health_from_json(raw: Mapping[str, Any]) -> Health:
    """A health from its JSON object, as on the bus or from the API; raises Corrupt."""
    try:
        last = raw.get("last")
        return Health(
            state=Freshness(raw["state"]),
            valid_until_ns=ns_of(raw["valid_until"]),
            last_ns=None if last is None else ns_of(last),
            alarms=tuple(str(alarm) for alarm in raw.get("alarms", [])),
        )
    except (KeyError, TypeError, ValueError, Invalid) as exc:
        raise Corrupt(f"a health that lacks sense: {exc}") from exc


def encode_mark(mark: Mark) -> bytes:
    """A mark as JSON."""
    streams = {
        stream: {
            epoch: {"upto": held.upto, "beyond": held.beyond} for epoch, held in epochs.items()
        }
        for stream, epochs in mark.streams.items()
    }
    return orjson.dumps({"v": WIRE_VERSION, "streams": streams})


def decode_mark(payload: bytes) -> Mark:
    """Read a mark; raises Corrupt."""
    raw = _versioned(payload, "a mark")
    try:
        return Mark(
            {
                stream: {epoch: _held(held) for epoch, held in epochs.items()}
                for stream, epochs in raw["streams"].items()
            }
        )
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise Corrupt(f"a mark that lacks sense: {exc}") from exc


def _held(raw: Mapping[str, Any]) -> Held:
    upto, beyond = raw["upto"], tuple((first, last) for first, last in raw["beyond"])
    numbers = [upto, *(number for pair in beyond for number in pair)]
    if any(type(number) is not int for number in numbers) or upto < 0 or numbers != sorted(numbers):
        raise ValueError(f"upto {upto!r} beyond {raw['beyond']!r:.80}")
    return Held(upto, beyond)


def spec_to_json(spec: StreamSpec) -> dict[str, Any]:
    """A spec as a JSON object; what is at its default is left out."""
    return {
        "v": WIRE_VERSION,
        "stream": str(spec.address),
        "version": spec.version,
        "trigger": spec.trigger,
        "period_s": spec.period_s,
        "max_silence_s": spec.max_silence_s,
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
    """A spec as JSON."""
    return orjson.dumps(spec_to_json(spec))


def decode_spec(payload: bytes) -> StreamSpec:
    """Read a spec; raises Corrupt."""
    return spec_from_json(_versioned(payload, "a spec"))


def spec_from_json(raw: Mapping[str, Any]) -> StreamSpec:
    """A spec from its JSON object; keys that are not known are passed over.  Raises Corrupt."""
    try:
        return StreamSpec(
            address=StreamAddress.parse(raw["stream"]),
            signals=tuple(_signal(one) for one in raw["signals"]),
            version=int(raw["version"]),
            trigger=Trigger(raw["trigger"]),
            period_s=float(raw.get("period_s", 0.0)),
            max_silence_s=float(raw.get("max_silence_s", 10.0)),
            description=str(raw.get("description", "")),
        )
    except (KeyError, TypeError, ValueError, AttributeError, Invalid) as exc:
        raise Corrupt(f"a spec that lacks sense: {exc}") from exc


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
