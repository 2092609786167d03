"""Signals in the payloads of a topic: the dtype of each value, and what cannot be read.  Pure."""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from broker.errors import Invalid
from broker.streams import MOST_ELEMENTS, MOST_SIGNALS, Dtype
from gateway.commissioning import signal_names, unit_names
from gateway.commissioning.mapping_text import quoted
from gateway.links.conversions import BOOLEANS
from gateway.links.mqtt import bodies
from gateway.links.mqtt.payloads import instant_in
from gateway.links.values import MOST_TEXT, Unfit
from gateway.mapping.conversions import Conversion
from gateway.mapping.mqtt_source import Pointer, choice_text, pointer_text

DEEPEST = 20
KEYS = ("id", "name", "tag", "key", "n", "signal", "item", "channel")
"""Fields that tell the elements of an array apart, the likeliest first."""
FEW_TEXTS = 8
"""Texts of which a signal has at most so many, and some twice, are states of an enumeration."""
_SPARKPLUG = "spBv1.0/"
_NUMBER_AND_UNIT = re.compile(r"\s*[+-]?\d+(?:[.,]\d+)?\s*[^\d\s.,:;/-][^\d]{0,9}\s*")
_COMMA = re.compile(r"\s*[+-]?\d+,\d+\s*")
_LEADING_ZERO = re.compile(r"\s*[+-]?0\d+\s*")
_TIME_NAMES = {"ts", "time", "timestamp", "datetime", "date", "t"}
_EPOCH_S = (1_262_304_000, 4_102_444_800)
"""2010 to 2100: a number between, in some unit, in a field named as a time, is a time stamp."""
_EPOCH_UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


@dataclass(slots=True)
class TopicSignals:
    """The signals of a topic, and remarks on its values.

    signals: name -> fields of a mapping.  remarks: about values that are in the mapping.  left_out:
    about values that are not.
    """

    signals: dict[str, dict[str, Any]] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Kind:
    """The dtype of a value, None if it is left out; and a remark.

    length: of an array.  convert: the word with which it is read.
    """

    dtype: Dtype | None
    remark: str = ""
    description: str = ""
    length: int | None = None
    convert: Conversion | None = None


def of_topic(topic: str, payloads: Sequence[bytes]) -> TopicSignals:
    """The signals in the payloads of a topic, of which there is one or more."""
    result = TopicSignals()
    texts = [payload for payload in payloads if payload]
    binary = [payload for payload in texts if is_binary(payload)]
    if not texts:
        result.left_out.append(f"{topic}: an empty payload")
    elif topic.startswith(_SPARKPLUG):
        result.left_out.append(f"{topic}: Sparkplug B (binary), which is not supported")
    elif binary:
        size, begin = len(binary[-1]), binary[-1][:8].hex(" ")
        result.left_out.append(
            f"{topic}: a binary payload of {size} bytes ({begin} …), which is not supported: have"
            " the sensor publish text or JSON"
        )
    else:
        _add_texts(result, topic, texts)
    return result


def is_binary(payload: bytes) -> bool:
    """Whether a payload is no text: in no encoding that is known, or with control characters."""
    try:
        text = bodies.text(payload)
    except Unfit:
        return True
    return any(sign < " " and sign not in "\t\n\r" for sign in text)


def _add_texts(result: TopicSignals, topic: str, payloads: Sequence[bytes]) -> None:
    documents: list[object] = []
    plain: list[object] = []
    for payload in payloads:
        try:
            parsed = [each for each in bodies.documents(payload) if each is not bodies.UNREAD]
        except Unfit:
            parsed = [bodies.text(payload)]
        if isinstance(parsed[0], dict | list):
            documents += parsed
        else:
            plain.append(parsed[0] if len(parsed) == 1 else bodies.text(payload))
    if documents:
        if plain:
            share = f"{len(plain)} of {len(payloads)} messages"
            result.remarks.append(f"{topic}: {share} are no JSON document, and will be bad samples")
        _add_documents(result, topic, documents)
        return
    name = topic.rpartition("/")[2]
    quoted_texts = [payload for payload in payloads if payload.lstrip()[:1] == b'"']
    pointer: Pointer | None = () if len(quoted_texts) == len(payloads) else None
    _add_value(result, topic, pointer, name, plain)


def _add_documents(result: TopicSignals, topic: str, documents: Sequence[Any]) -> None:
    values: dict[Pointer, list[Any]] = {}
    for document in documents:
        for pointer, value in _leaves(document, ()):
            values.setdefault(pointer, []).append(value)
    for pointer, seen in values.items():
        name = ".".join(pointer) or topic.rpartition("/")[2]
        if len(result.signals) == MOST_SIGNALS:
            result.left_out.append(
                f"{topic}#{pointer_text(pointer)}: a stream has {MOST_SIGNALS} signals at most; put"
                " it into another stream"
            )
        else:
            _add_value(result, topic, pointer, name, seen)


def _leaves(value: Any, pointer: Pointer) -> Iterator[tuple[Pointer, Any]]:
    """Every value of a document that is no object with fields, with the pointer to it."""
    if isinstance(value, dict) and value and len(pointer) < DEEPEST:
        for name, inner in value.items():
            yield from _leaves(inner, (*pointer, name))
    elif (field := _key_of(value)) is not None and len(pointer) < DEEPEST:
        for element in value:
            step = choice_text(field, str(element[field]))
            inner = {name: each for name, each in element.items() if name != field}
            yield from _leaves(inner, (*pointer, step))
    else:
        yield pointer, value


def _key_of(value: Any) -> str | None:
    """The field that tells the elements of an array of objects apart; None if there is none."""
    if not isinstance(value, list) or not value or not all(isinstance(e, dict) for e in value):
        return None
    for name in KEYS:
        keys = [element.get(name) for element in value]
        if all(isinstance(key, str | int) for key in keys) and len({*map(str, keys)}) == len(keys):
            return name
    return None


def _add_value(
    result: TopicSignals, topic: str, pointer: Pointer | None, text: str, seen: Sequence[Any]
) -> None:
    """Add one signal, or the reason why there is none."""
    place = topic if pointer is None else f"{topic}#{pointer_text(pointer)}"
    kind = _kind(pointer, seen)
    if kind.dtype is None:
        result.left_out.append(f"{place}: {kind.remark}")
        return
    named = unit_names.split(text)
    name = signal_names.unused(signal_names.signal_name(named.name), result.signals)
    fields: dict[str, Any] = {"topic": topic, "dtype": str(kind.dtype)}
    if kind.length is not None:
        fields["shape"] = [kind.length]
    if pointer is not None and not (kind.length is not None and pointer == ()):
        fields["value"] = pointer_text(pointer)
    if named.unit is not None:
        fields["unit"] = named.unit
    if kind.convert is not None:
        fields["convert"] = str(kind.convert)
    if kind.description:
        fields["description"] = kind.description
    if named.unknown:
        result.remarks.append(f"{name}: its unit {named.unknown!r} is not known in UCUM; set unit")
    if kind.remark:
        result.remarks.append(f"{name}: {kind.remark}")
    result.signals[name] = fields


def _kind(pointer: Pointer | None, seen: Sequence[Any]) -> _Kind:
    """The kind of a value by all that was seen of it."""
    values = [value for value in seen if value is not None]
    if reason := _unsupported(values, pointer):
        return _Kind(None, reason)
    if isinstance(values[0], list):
        dtype = Dtype.BOOL if isinstance(values[0][0], bool) else Dtype.FLOAT64
        return _Kind(dtype, length=len(values[0]))
    if all(isinstance(value, bool) for value in values):
        return _Kind(Dtype.BOOL)
    if all(_is_number(value) for value in values):
        return _Kind(Dtype.FLOAT64, _time_remark(pointer, values[-1]))
    if all(isinstance(value, str) for value in values):
        return _of_texts(pointer, values)
    return _of_different_types(pointer, values)


def _unsupported(values: Sequence[Any], pointer: Pointer | None) -> str:
    """The reason why no signal can have these values; empty if one may."""
    lengths = sorted({len(value) for value in values if isinstance(value, list)})
    if lengths and not _are_alike(values):
        sizes, first = "/".join(map(str, lengths[:3])), pointer_text((*(pointer or ()), "0"))
        return (
            f"an array of {sizes} values, which are no numbers, or not as many in each message;"
            f" write value: {first} for the first of them, and so on"
        )
    if any(isinstance(value, dict) for value in values):
        return "an object without fields, or one that is nested too deep"
    if any(isinstance(value, str) and len(value) > MOST_TEXT for value in values):
        return f"a text of more than {MOST_TEXT} characters"
    return "" if values else "it was null all the time"


def _are_alike(values: Sequence[Any]) -> bool:
    """Whether all values are arrays of one length, of numbers or of truth values."""
    if not all(isinstance(value, list) and len(value) == len(values[0]) for value in values):
        return False
    elements = [element for value in values for element in value]
    is_short = 0 < len(values[0]) <= MOST_ELEMENTS
    numbers, truths = map(_is_number, elements), (isinstance(each, bool) for each in elements)
    return is_short and (all(numbers) or all(truths))


def _of_different_types(pointer: Pointer | None, values: Sequence[Any]) -> _Kind:
    if all(_is_number(value) or _is_numeric_text(value) for value in values):
        return _Kind(Dtype.FLOAT64, "a number, sometimes as text")
    if pointer is None:
        return _Kind(Dtype.STRING, "its type differs between messages; it is stored as text")
    kinds = ", ".join(sorted({type(value).__name__ for value in values}))
    return _Kind(None, f"its type differs between messages ({kinds}): choose a dtype by hand")


def _of_texts(pointer: Pointer | None, texts: Sequence[str]) -> _Kind:
    """The kind of a value that is text in every message."""
    for fits, dtype, convert, remark in _TEXTS:
        if all(fits(text) for text in texts):
            place, text = pointer_text(pointer or ()), quoted(texts[-1])
            return _Kind(dtype, remark.format(place=place, text=text), convert=convert)
    return _states(texts)


def _states(texts: Sequence[str]) -> _Kind:
    distinct = sorted(set(texts))
    if len(distinct) <= FEW_TEXTS and len(texts) > len(distinct):
        states = ", ".join(quoted(text) for text in distinct)[:300]
        return _Kind(Dtype.STRING, f"states as text, so far: {states}", f"states seen: {states}")
    return _Kind(Dtype.STRING)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_numeric_text(value: Any) -> bool:
    """Whether a text is a finite number, and no number in name only, such as 0042."""
    if not isinstance(value, str) or _LEADING_ZERO.fullmatch(value) or "_" in value:
        return False
    try:
        return math.isfinite(float(value))
    except ValueError:
        return False


def _is_instant(text: str) -> bool:
    try:
        instant_in(text)
    except (Invalid, ValueError, OverflowError):
        return False
    return True


def _time_remark(pointer: Pointer | None, value: float) -> str:
    if not pointer or pointer[-1].lower() not in _TIME_NAMES:
        return ""
    low, high = _EPOCH_S
    for unit, factor in _EPOCH_UNITS.items():
        if low * factor <= value < high * factor:
            place = pointer_text(pointer)
            fields = f"time: {place}, time_format: {unit}"
            return f"a time stamp: write {fields} into this topic's signals"
    return ""


_TEXTS: Sequence[tuple[Callable[[str], bool], Dtype, Conversion | None, str]] = (
    (_is_numeric_text, Dtype.FLOAT64, None, "a number as text"),
    (lambda text: text.strip().lower() in BOOLEANS, Dtype.BOOL, None, "true or false as text"),
    (
        lambda text: _COMMA.fullmatch(text) is not None,
        Dtype.FLOAT64,
        Conversion.COMMA,
        "a number with a decimal comma",
    ),
    (
        lambda text: _NUMBER_AND_UNIT.fullmatch(text) is not None,
        Dtype.FLOAT64,
        Conversion.UNIT,
        "a number with its unit in one text ({text}): set unit",
    ),
    (
        _is_instant,
        Dtype.STRING,
        None,
        "a time stamp: write time: {place} into this topic's signals",
    ),
)
"""Test of a text; dtype, conversion and remark of a value whose texts pass it; the first counts."""
