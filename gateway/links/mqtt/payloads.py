"""What a sensor's MQTT message says: value and time of each signal that is read of it.  Pure.

A payload is a plain value or a JSON document; a JSON Pointer (RFC 6901) finds a part of one.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, NamedTuple

import orjson

from broker.batch import BAD, GOOD, NO_VALUE
from broker.clock import ns_of
from broker.errors import Invalid
from broker.streams import Dtype
from gateway.links.opcua.types import Unfit, instant_of, value_of

Pointer = tuple[str, ...]

ABSENT = object()
"""What a pointer finds where there is nothing."""
MOST_SHOWN = 60
_WORDS = {"true": True, "on": True, "1": True, "false": False, "off": False, "0": False}


class TimeForm(StrEnum):
    """How a payload writes a time stamp: ISO 8601, or a count since 1970 UTC."""

    ISO8601 = "iso8601"
    S = "s"
    MS = "ms"
    US = "us"
    NS = "ns"


_NS = {TimeForm.S: 10**9, TimeForm.MS: 10**6, TimeForm.US: 10**3, TimeForm.NS: 1}
_YEARS_NS = range(2**63)


@dataclass(frozen=True, slots=True)
class Reading:
    """Where a signal is found.

    value: the part of a document, None if the payload is the value.  time: the part with the time
    stamp, None for the moment of arrival.
    """

    topic: str
    value: Pointer | None = None
    time: Pointer | None = None
    form: TimeForm = TimeForm.ISO8601

    def __str__(self) -> str:
        return self.topic + ("" if self.value is None else "#" + written(self.value))


class Found(NamedTuple):
    """One sample.  reason: why it is BAD; empty where it is not."""

    time_ns: int
    value: Any
    quality: int
    reason: str = ""


def pointer(text: str) -> Pointer:
    """Read a JSON Pointer; raises Invalid."""
    if text and not text.startswith("/"):
        raise Invalid(f"{text[:80]!r} is no JSON Pointer", hint="write /outer/inner")
    return tuple(one.replace("~1", "/").replace("~0", "~") for one in text.split("/")[1:])


def checked_topic(text: str) -> str:
    """Give `text` back if it names one MQTT topic; raises Invalid."""
    if not text or any(one in text for one in "+#\0") or len(text.encode()) > 65_535:
        raise Invalid(f"topic {text[:80]!r} is not one topic", hint="no wildcards, no NUL")
    return text


def written(parts: Pointer) -> str:
    """A pointer as text."""
    return "".join("/" + one.replace("~", "~0").replace("/", "~1") for one in parts)


def document(payload: bytes) -> Any:
    """The JSON in a payload; raises Unfit if it is none."""
    try:
        return orjson.loads(payload)
    except orjson.JSONDecodeError as exc:
        raise Unfit(f"{_shown(payload)} is no JSON: {exc}") from exc


def read(
    payload: bytes, reading: Reading, dtype: Dtype, arrived_ns: int, whole: Any = ABSENT
) -> Found | None:
    """What a payload says of a signal; None if it does not speak of it.

    whole: the payload's document, if it was read before.  What cannot be used is a BAD sample with
    the reason, at the moment of arrival if it has no time.
    """
    time_ns = arrived_ns
    try:
        if whole is ABSENT and (reading.value is not None or reading.time is not None):
            whole = document(payload)
        given = _plain(payload, dtype) if reading.value is None else part(whole, reading.value)
        if given is ABSENT:
            return None
        if reading.time is not None:
            time_ns = _time_of(part(whole, reading.time), reading)
        return Found(time_ns, value_of(given, dtype), GOOD)
    except Unfit as exc:
        return Found(time_ns, NO_VALUE[dtype], BAD, f"{reading}: {exc}")


def part(whole: Any, where: Pointer) -> Any:
    """What stands there in a document, or ABSENT."""
    for step in where:
        if isinstance(whole, dict) and step in whole:
            whole = whole[step]
        elif isinstance(whole, list) and step.isdecimal() and int(step) < len(whole):
            whole = whole[int(step)]
        else:
            return ABSENT
    return whole


def _plain(payload: bytes, dtype: Dtype) -> Any:
    """A payload that is the value itself."""
    try:
        text = payload.decode()
    except UnicodeDecodeError as exc:
        raise Unfit(f"{_shown(payload)} is no UTF-8") from exc
    if dtype is Dtype.STRING:
        return text
    word = text.strip()
    try:
        if dtype is Dtype.BOOL:
            return _WORDS[word.lower()]
        return int(word) if dtype is Dtype.INT64 else float(word)
    except (KeyError, ValueError) as exc:
        raise Unfit(f"{_shown(payload)} is no {dtype}") from exc


def _time_of(given: Any, reading: Reading) -> int:
    if given is ABSENT:
        raise Unfit(f"there is no time stamp at {written(reading.time or ())}")
    try:
        time_ns = _instant(given) if reading.form is TimeForm.ISO8601 else _count(given, reading)
    except (Invalid, OverflowError, ValueError) as exc:
        raise Unfit(f"{str(given)[:MOST_SHOWN]!r} is no time stamp in {reading.form}") from exc
    if time_ns not in _YEARS_NS:
        raise Unfit(f"{str(given)[:MOST_SHOWN]!r} is no time since 1970")
    return time_ns


def _count(given: Any, reading: Reading) -> int:
    """Whole units exactly; fractions to the nanosecond that a float64 holds."""
    unit = _NS[reading.form]
    if type(given) is int:
        return given * unit
    if type(given) is float:
        return round(given * unit)
    raise Invalid("not a number")


def _instant(given: Any) -> int:
    """An instant; one without a zone is UTC."""
    if not isinstance(given, str):
        raise Invalid("not a text")
    try:
        return ns_of(given)
    except Invalid:
        moment = datetime.fromisoformat(given)
        return instant_of(moment if moment.tzinfo else moment.replace(tzinfo=UTC))


def _shown(payload: bytes) -> str:
    return repr(payload[:MOST_SHOWN].decode(errors="replace"))
