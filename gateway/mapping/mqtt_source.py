"""Places of values in MQTT messages, as a mapping names them: topic, JSON Pointers, time format.

A payload is a plain value or a JSON document, of which a JSON Pointer (RFC 6901) names a part.
Pure.
"""

from dataclasses import dataclass
from enum import StrEnum

from broker.errors import Invalid

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
    part with the time stamp, None for the time of arrival.
    """

    topic: str
    value: Pointer | None = None
    time: Pointer | None = None
    form: TimeForm = TimeForm.ISO8601

    def __str__(self) -> str:
        return self.topic + ("" if self.value is None else "#" + pointer_text(self.value))


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
