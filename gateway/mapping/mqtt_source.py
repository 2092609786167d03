"""Places of values in MQTT messages, as a mapping names them: topic, JSON Pointers, time format.

A payload is a plain value or a JSON document, of which a JSON Pointer (RFC 6901) names a part.  Two
steps of a pointer are ours: `[id=Tag2]` names the elements of an array whose field `id` is `Tag2`,
and `*` all elements of an array.  Pure.
"""

import codecs
import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from broker.errors import Invalid
from gateway.mapping.conversions import Conversion

Pointer = tuple[str, ...]
"""Names and indexes from the root of a JSON document down."""


class TimeForm(StrEnum):
    """Formats of a time stamp in a payload: ISO 8601, or a count of units since 1970 UTC."""

    ISO8601 = "iso8601"
    S = "s"
    MS = "ms"
    US = "us"
    NS = "ns"


@dataclass(frozen=True, slots=True, kw_only=True)
class MqttSource:
    """The place of one signal's values in MQTT messages.

    value: the part of the document with the value, None if the payload is the value.  time: the
    part with the time stamp, None for the time of arrival.  form: of the time stamp; a text is a
    pattern as of `strptime`.  zone: of a time stamp that names none.  encoding: of a text, None to
    look at its bytes.  convert: conversions that the mapping allows.
    """

    topic: str
    value: Pointer | None = None
    time: Pointer | None = None
    form: TimeForm | str = TimeForm.ISO8601
    zone: str = "UTC"
    encoding: str | None = None
    convert: frozenset[Conversion] = frozenset()

    @property
    def is_in_document(self) -> bool:
        """Whether value or time is a part of a JSON document."""
        return self.value is not None or self.time is not None

    def __str__(self) -> str:
        return self.topic + ("" if self.value is None else "#" + pointer_text(self.value))


_CHOICE = re.compile(r"\[(?P<field>[^=\]]+)=(?P<value>.*)\]")
EVERY = "*"
PATTERN_TRIED = "2026-12-31T23:59:58"


def choice(step: str) -> tuple[str, str] | None:
    """Field and value of a step such as `[id=Tag2]`, None for any other step."""
    match = _CHOICE.fullmatch(step)
    return None if match is None else (match["field"], match["value"])


def choice_text(field: str, value: str) -> str:
    """The step that names the elements of an array by a field, the inverse of `choice`."""
    return f"[{field}={value}]"


def names_several(pointer: Pointer | None) -> bool:
    """Whether a pointer may name several parts of a document."""
    return any(step == EVERY or step.startswith("[") for step in pointer or ())


def checked_time_form(text: str) -> TimeForm | str:
    """Return the form of a time stamp: a name, or a pattern as of `strptime`; raises Invalid."""
    if text in set(TimeForm):
        return TimeForm(text)
    moment = datetime.fromisoformat(PATTERN_TRIED)
    try:
        is_pattern = "%" in text and datetime.strptime(moment.strftime(text), text) is not None  # noqa: DTZ007 - tried alone
    except (ValueError, re.error):
        is_pattern = False
    if not is_pattern:
        raise Invalid(
            f"{text[:80]!r} is no form of a time stamp",
            hint=f"one of {', '.join(TimeForm)}, or a pattern such as %d.%m.%Y %H:%M:%S",
        )
    return text


def checked_encoding(text: str) -> str:
    """Return `text` if it names an encoding of texts; raises Invalid."""
    try:
        is_known = codecs.lookup(text)._is_text_encoding  # noqa: SLF001 - what bytes.decode asks
    except LookupError:
        is_known = False
    if not is_known:
        raise Invalid(f"{text[:80]!r} is no encoding", hint="such as latin-1, cp1252 or utf-16")
    return text


def pointer(text: str) -> Pointer:
    """Parse a JSON Pointer such as `/outer/inner`; raises Invalid."""
    if text and not text.startswith("/"):
        raise Invalid(f"{text[:80]!r} is no JSON Pointer", hint="write /outer/inner")
    return tuple(step.replace("~1", "/").replace("~0", "~") for step in text.split("/")[1:])


def pointer_text(pointer: Pointer) -> str:
    """Write a JSON Pointer as text, the inverse of `pointer`."""
    return "".join("/" + step.replace("~", "~0").replace("/", "~1") for step in pointer)


def checked_topic(text: str) -> str:
    """Return `text` if it is the name of one MQTT topic; raises Invalid."""
    if not text or any(sign in text for sign in "+#\0") or len(text.encode()) > 65_535:
        raise Invalid(f"topic {text[:80]!r} is not one topic", hint="no wildcards, no NUL")
    return text
