"""Decoding of MQTT payloads: the values and time stamps of a signal in one message.  Pure."""

import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from broker.batch import BAD, GOOD, no_value
from broker.clock import ns_of
from broker.errors import Invalid
from broker.streams import ArrayOf, Dtype, ValueType
from gateway.links import conversions, values
from gateway.links.mqtt import bodies
from gateway.links.values import Unfit, instant_of
from gateway.mapping import mqtt_source
from gateway.mapping.mqtt_source import EVERY, MqttSource, Pointer, TimeForm, pointer_text

ABSENT = object()
"""The result of a JSON Pointer that names nothing in a document."""
MOST_QUOTED = 60
"""Characters of a payload in a message."""
MOST_SAMPLES = 10_000
"""Samples of a signal in one message; what is behind them is left out, with a bad sample."""
_NS = {TimeForm.S: 10**9, TimeForm.MS: 10**6, TimeForm.US: 10**3, TimeForm.NS: 1}
_COUNT = re.compile(r"\s*(?P<whole>\d{1,19})(?:\.(?P<part>\d{1,18}))?\s*", re.ASCII)
_YEARS_NS = range(2**63)


class PayloadSample(NamedTuple):
    """One sample read from a payload.

    time_ns: None for a BAD sample of a retained message, in which no time can be read.  reason: why
    its quality is BAD, the same for the same fault; empty for GOOD.
    """

    time_ns: int | None
    value: Any
    quality: int
    reason: str = ""


Documents = Sequence[Any] | Unfit
"""The JSON documents of a payload, or why there are none."""


def documents(payload: bytes, encoding: str | None = None) -> Documents:
    """Parse a payload as JSON."""
    try:
        return bodies.documents(payload, encoding)
    except Unfit as exc:
        return exc


def read(
    payload: bytes,
    source: MqttSource,
    dtype: ValueType,
    arrived_ns: int | None,
    parsed: Documents | None = None,
) -> list[PayloadSample]:
    """Read a signal's samples from a payload; none if the payload has no value for the signal.

    arrived_ns: None for a retained message: it is as old as it says itself.  parsed: the documents
    of the payload, if that was done before.  A value that does not fit becomes a BAD sample with
    the reason, at its time stamp if that can be read, else at `arrived_ns`.
    """
    try:
        if not source.is_in_document:
            given = _plain(payload, source, dtype)
            return [PayloadSample(arrived_ns, values.read(given, dtype), GOOD)]
        whole = documents(payload, source.encoding) if parsed is None else parsed
        if isinstance(whole, Unfit):
            raise whole
    except Unfit as exc:
        return [_bad(arrived_ns, source, dtype, exc)]
    samples: list[PayloadSample] = []
    for document in whole:
        samples += _in_document(document, source, dtype, arrived_ns)
        if len(samples) > MOST_SAMPLES:
            excess = Unfit(f"it has more than {MOST_SAMPLES:,} samples of a signal")
            return [*samples[:MOST_SAMPLES], _bad(arrived_ns, source, dtype, excess)]
    return samples


def _in_document(
    document: Any, source: MqttSource, dtype: ValueType, arrived_ns: int | None
) -> Iterator[PayloadSample]:
    """Yield the samples of one document."""
    if document is bodies.UNREAD:
        yield _bad(arrived_ns, source, dtype, Unfit("a part of it is no JSON"))
        return
    times = None if source.time is None else dict(parts(document, source.time))
    for key, given in parts(document, source.value or ()):
        time_ns = arrived_ns
        try:
            if times is not None:
                time_ns = _time_of(times.get(key, times.get((), ABSENT)), source)
            value = values.read(conversions.converted(given, dtype, source.convert), dtype)
        except Unfit as exc:
            yield _bad(time_ns, source, dtype, exc)
        else:
            yield PayloadSample(time_ns, value, GOOD)


def _bad(time_ns: int | None, source: MqttSource, dtype: ValueType, reason: Unfit) -> PayloadSample:
    return PayloadSample(time_ns, no_value(dtype), BAD, f"{source}: {reason}")


def parts(whole: Any, pointer: Pointer) -> Iterator[tuple[tuple[int, ...], Any]]:
    """Yield the parts of a JSON document that a pointer names, each with its key.

    The key holds the places that its steps `*` and `[field=value]` chose, so that value and time of
    one element have the same.
    """
    if not pointer:
        yield (), whole
        return
    step, rest = pointer[0], pointer[1:]
    if isinstance(whole, dict) and step in whole:
        yield from parts(whole[step], rest)
    elif isinstance(whole, list):
        if step.isdecimal():
            if int(step) < len(whole):
                yield from parts(whole[int(step)], rest)
            return
        for at in _chosen(whole, step):
            for key, part in parts(whole[at], rest):
                yield (at, *key), part


def _chosen(elements: Sequence[Any], step: str) -> Iterator[int]:
    """The places of an array that a step names."""
    if step == EVERY:
        yield from range(len(elements))
    elif (wanted := mqtt_source.choice(step)) is not None:
        field, value = wanted
        for at, element in enumerate(elements):
            if isinstance(element, dict) and field in element and str(element[field]) == value:
                yield at


def _plain(payload: bytes, source: MqttSource, dtype: ValueType) -> Any:
    """The value of a payload that is the value itself."""
    if isinstance(dtype, ArrayOf):
        return conversions.converted(
            bodies.documents(payload, source.encoding)[0], dtype, source.convert
        )
    text = bodies.text(payload, source.encoding)
    return text if dtype is Dtype.STRING else conversions.converted(text, dtype, source.convert)


def _time_of(given: Any, source: MqttSource) -> int:
    place = pointer_text(source.time or ())
    if given is ABSENT:
        raise Unfit(f"there is no time stamp at {place}")
    try:
        time_ns = _ns_of(given, source)
    except (Invalid, OverflowError, ValueError) as exc:
        raise Unfit(f"there is no time stamp in the form {source.form} at {place}") from exc
    if time_ns not in _YEARS_NS:
        raise Unfit(f"the time stamp at {place} is no time since 1970")
    return time_ns


def _ns_of(given: Any, source: MqttSource) -> int:
    """Nanoseconds of a time stamp; raises Invalid, OverflowError or ValueError."""
    if source.form is TimeForm.ISO8601:
        return instant_in(given, source.zone)
    if isinstance(source.form, TimeForm):
        return _count(given, _NS[source.form])
    if not isinstance(given, str):
        raise Invalid("not a text")
    moment = datetime.strptime(given.strip(), source.form)  # noqa: DTZ007 - the zone follows
    return instant_of(moment if moment.tzinfo else moment.replace(tzinfo=ZoneInfo(source.zone)))


def _count(given: Any, unit: int) -> int:
    """Nanoseconds of a count of units: exact for integers and texts, else as float64 is."""
    if isinstance(given, int) and not isinstance(given, bool):
        return given * unit
    if isinstance(given, float):
        return round(given * unit)
    match = _COUNT.fullmatch(given) if isinstance(given, str) else None
    if match is None:
        raise Invalid("not a number")
    part = match["part"] or ""
    return int(match["whole"]) * unit + int(part.ljust(18, "0")) * unit // 10**18


def instant_in(given: Any, zone: str = "UTC") -> int:
    """Nanoseconds of an ISO 8601 text; zone: of one that names none.

    Raises Invalid or ValueError.
    """
    if not isinstance(given, str):
        raise Invalid("not a text")
    try:
        return ns_of(given)
    except Invalid:
        moment = datetime.fromisoformat(given)
        return instant_of(moment if moment.tzinfo else moment.replace(tzinfo=ZoneInfo(zone)))


def quoted(payload: bytes) -> str:
    """The beginning of a payload, for people."""
    return repr(payload[:MOST_QUOTED].decode(errors="replace"))
