"""Decoding of MQTT payloads: the value and the time stamp of a signal in one message.  Pure."""

from datetime import UTC, datetime
from typing import Any, NamedTuple

import orjson

from broker.batch import BAD, GOOD, no_value
from broker.clock import ns_of
from broker.errors import Invalid
from broker.streams import ArrayOf, Dtype, ValueType
from gateway.links import values
from gateway.links.values import Unfit, instant_of
from gateway.mapping.mqtt_source import MqttSource, Pointer, TimeForm, pointer_text

ABSENT = object()
"""The result of a JSON Pointer that names nothing in a document."""
MOST_QUOTED = 60
"""Characters of a payload in a message."""
BOOLEANS = {"true": True, "on": True, "1": True, "false": False, "off": False, "0": False}
_NS = {TimeForm.S: 10**9, TimeForm.MS: 10**6, TimeForm.US: 10**3, TimeForm.NS: 1}
_YEARS_NS = range(2**63)


class PayloadSample(NamedTuple):
    """One sample read from a payload.

    time_ns: None for a BAD sample of a retained message, in which no time can be read.  reason: why
    its quality is BAD; empty for GOOD.
    """

    time_ns: int | None
    value: Any
    quality: int
    reason: str = ""


def document(payload: bytes) -> Any:
    """Parse a payload as JSON; raises Unfit if it is none."""
    try:
        return orjson.loads(payload)
    except orjson.JSONDecodeError as exc:
        raise Unfit(f"{_quoted(payload)} is no JSON: {exc}") from exc


def read(
    payload: bytes,
    source: MqttSource,
    dtype: ValueType,
    arrived_ns: int | None,
    whole: Any = ABSENT,
) -> PayloadSample | None:
    """Read a signal's sample from a payload; None if the payload has no value for the signal.

    arrived_ns: None for a retained message: it is as old as it says itself.  whole: the payload
    parsed as JSON, if that was done before.  A value that does not fit becomes a BAD sample with
    the reason, at its time stamp if that can be read, else at `arrived_ns`.
    """
    time_ns = arrived_ns
    try:
        if whole is ABSENT and (source.value is not None or source.time is not None):
            whole = document(payload)
        given = _plain(payload, dtype) if source.value is None else part(whole, source.value)
        if given is ABSENT:
            return None
        if source.time is not None:
            time_ns = _time_of(part(whole, source.time), source)
        if source.value is not None and isinstance(given, str) and isinstance(dtype, Dtype):
            given = _word(given, dtype)
        return PayloadSample(time_ns, values.read(given, dtype), GOOD)
    except Unfit as exc:
        return PayloadSample(time_ns, no_value(dtype), BAD, f"{source}: {exc}")


def part(whole: Any, pointer: Pointer) -> Any:
    """The part of a JSON document that a pointer names, or ABSENT."""
    for step in pointer:
        if isinstance(whole, dict) and step in whole:
            whole = whole[step]
        elif isinstance(whole, list) and step.isdecimal() and int(step) < len(whole):
            whole = whole[int(step)]
        else:
            return ABSENT
    return whole


def _plain(payload: bytes, dtype: ValueType) -> Any:
    """Parse a payload that is the value itself."""
    if isinstance(dtype, ArrayOf):
        return document(payload)
    try:
        text = payload.decode()
    except UnicodeDecodeError as exc:
        raise Unfit(f"{_quoted(payload)} is no UTF-8") from exc
    return _word(text, dtype)


def _word(text: str, dtype: Dtype) -> Any:
    """Parse a value that is written as text."""
    if dtype is Dtype.STRING:
        return text
    word = text.strip()
    try:
        if "_" in word:  # Python reads 1_000 as a number, and no sensor writes one so
            raise ValueError(word)
        if dtype is Dtype.BOOL:
            return BOOLEANS[word.lower()]
        return int(word) if dtype is Dtype.INT64 else float(word)
    except (KeyError, ValueError) as exc:
        raise Unfit(f"{text[:MOST_QUOTED]!r} is no {dtype}") from exc


def _time_of(given: Any, source: MqttSource) -> int:
    if given is ABSENT:
        raise Unfit(f"there is no time stamp at {pointer_text(source.time or ())}")
    try:
        is_text = source.form is TimeForm.ISO8601
        time_ns = instant_in(given) if is_text else _count(given, source.form)
    except (Invalid, OverflowError, ValueError) as exc:
        raise Unfit(f"{str(given)[:MOST_QUOTED]!r} is no time stamp in {source.form}") from exc
    if time_ns not in _YEARS_NS:
        raise Unfit(f"{str(given)[:MOST_QUOTED]!r} is no time since 1970")
    return time_ns


def _count(given: Any, form: TimeForm) -> int:
    """Nanoseconds of a count of units: exact for integers, else as exact as float64 is."""
    unit = _NS[form]
    if type(given) is int:
        return given * unit
    if type(given) is float:
        return round(given * unit)
    raise Invalid("not a number")


def instant_in(given: Any) -> int:
    """Nanoseconds of an ISO 8601 text; without a zone it is UTC.  Raises Invalid or ValueError."""
    if not isinstance(given, str):
        raise Invalid("not a text")
    try:
        return ns_of(given)
    except Invalid:
        moment = datetime.fromisoformat(given)
        return instant_of(moment if moment.tzinfo else moment.replace(tzinfo=UTC))


def _quoted(payload: bytes) -> str:
    return repr(payload[:MOST_QUOTED].decode(errors="replace"))
