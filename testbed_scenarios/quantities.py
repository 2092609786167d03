"""Types of the values in a scenario file: durations, instants, references, numbers with units.

Each is read from the text that a person writes and dumped as that text again, so that a scenario
which is dumped and read is equal.  Times are integers of nanoseconds, whole microseconds.
"""

import math
import re
from dataclasses import dataclass
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema

from broker import clock, namespace, streams, time_expressions, units
from broker.errors import Invalid
from broker.file_values import (
    DURATION_FORM,
    DURATION_PATTERN,
    ID,
    duration_ns,
    reading,
    text_schema,
)
from broker.time_expressions import duration_text

RANGE_SIGN = ".."
_SIGNAL = r"[A-Za-z0-9][A-Za-z0-9 _.-]{0,63}"
INSTANT_PATTERN = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)$"
_AMOUNT = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)(?:\s+(\S+))?", re.ASCII)


# --- times ---------------------------------------------------------------------------------------


def signed_duration_ns(text: str) -> int:
    """The nanoseconds of a duration that may have a sign in front; raises Invalid."""
    sign = -1 if text.startswith("-") else 1
    return sign * time_expressions.nanoseconds(text.removeprefix("-").removeprefix("+"))


def signed_duration_text(value_ns: int) -> str:
    """The text of a duration that may be below 0."""
    text = duration_text(abs(value_ns))
    return f"-{text}" if value_ns < 0 else text


def instant_text(time_ns: int) -> str:
    """The text of an instant, without a fraction of a second that is 0."""
    return clock.text_of(time_ns).removesuffix("Z").rstrip("0").removesuffix(".") + "Z"


_as_duration = PlainSerializer(duration_text, return_type=str)

MomentNs = Annotated[
    int,
    reading(time_expressions.nanoseconds),
    _as_duration,
    text_schema(DURATION_PATTERN, f"time since the beginning: {DURATION_FORM}", "60s"),
]
"""A moment of virtual time, in ns since the scenario began."""
DurationBoundNs = Annotated[
    int,
    reading(time_expressions.nanoseconds),
    _as_duration,
    text_schema(DURATION_PATTERN, f"{DURATION_FORM}; 0s is one", "5s"),
]
"""A duration that another one is compared with, in ns; 0 is one."""
SignedDurationNs = Annotated[
    int,
    reading(signed_duration_ns),
    PlainSerializer(signed_duration_text, return_type=str),
    text_schema(
        DURATION_PATTERN.replace("^", "^[+-]?"), f"{DURATION_FORM}; with - before it, back", "-2s"
    ),
]
"""A duration that may be below 0, in ns."""
InstantNs = Annotated[
    int,
    reading(clock.ns_of),
    PlainSerializer(instant_text, return_type=str),
    text_schema(INSTANT_PATTERN, "an instant, RFC 3339", "2026-01-01T00:00:00Z"),
]
"""An instant, in ns since 1970 UTC."""


@dataclass(frozen=True, slots=True)
class DurationRange:
    """A duration from `low_ns` to `high_ns`, both included; equal where only one is possible."""

    low_ns: int
    high_ns: int

    def __post_init__(self) -> None:
        if self.low_ns > self.high_ns:
            raise Invalid(f"{self} ends before it begins", hint="write the shorter one first")

    def __str__(self) -> str:
        low, high = map(duration_text, (self.low_ns, self.high_ns))
        return low if low == high else f"{low}{RANGE_SIGN}{high}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse `20s..60s` or `20s`; raises Invalid."""
        low, _, high = text.partition(RANGE_SIGN)
        return cls(duration_ns(low.strip()), duration_ns((high or low).strip()))


DurationSpan = Annotated[
    DurationRange,
    reading(DurationRange.parse, DurationRange),
    PlainSerializer(str, return_type=str),
    text_schema(
        rf"{DURATION_PATTERN[:-1]}(\.\.{DURATION_PATTERN[1:-1]})?$",
        "a duration, or the shortest and the longest with .. between",
        "20s..60s",
    ),
]


# --- numbers -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PhysicalValue:
    """A number with the unit that stands behind it, a UCUM code; empty where there is none."""

    number: float
    unit: str = ""

    def __str__(self) -> str:
        return f"{self.number!r} {self.unit}".strip()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse `2.5` or `2.5 bar`; raises Invalid for no number and for no unit of UCUM."""
        match = _AMOUNT.fullmatch(text)
        if match is None or not math.isfinite(float(match[1])):
            raise Invalid(
                f"{text[:40]!r} is no number",
                hint="write one such as 2.5, or 2.5 bar with its unit",
            )
        return cls(float(match[1]), units.checked_unit(match[2]) if match[2] else "")


def _amount(value: Any) -> Any:
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return PhysicalValue(float(value))
    return value


def _plain(amount: PhysicalValue) -> float | str:
    return str(amount) if amount.unit else amount.number


Quantity = Annotated[
    PhysicalValue,
    reading(PhysicalValue.parse, PhysicalValue),
    BeforeValidator(_amount),
    PlainSerializer(_plain),
    WithJsonSchema(
        {
            "anyOf": [{"type": "number"}, {"type": "string", "pattern": r"^[+-]?[\d.]\S*( \S+)?$"}],
            "description": "a number, or a number and its unit as a UCUM code",
            "examples": [0.5, "2.5 bar"],
        }
    ),
]
"""A number, with its unit where one is written."""


def _factor(text: str) -> float:
    amount = PhysicalValue.parse(text)
    if amount.unit or amount.number == 0:
        raise Invalid(f"{text[:40]!r} is no factor", hint="write a number such as 1000, not 0")
    return amount.number


Factor = Annotated[float, reading(_factor, float, int), WithJsonSchema({"type": "number"})]
"""A finite number, not 0 where it is written."""


def _share(text: str) -> float:
    number, _, sign = text.partition("%")
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if sign.strip() or "%" not in text or not 0 < value <= 100:
        raise Invalid(f"{text[:40]!r} is no share", hint="write one such as 5 %, above 0, to 100 %")
    return value / 100


def _share_text(share: float) -> str:
    return f"{share * 100:.12g} %"


Share = Annotated[
    float,
    Field(gt=0, le=1),
    reading(_share, float),
    PlainSerializer(_share_text, return_type=str),
    WithJsonSchema({"type": "string", "pattern": r"^\d+(\.\d+)? ?%$", "examples": ["5 %"]}),
]
"""A share above 0, to 1; written in percent."""


# --- references ----------------------------------------------------------------------------------


def checked_stream(text: str) -> str:
    """Return `text` if it is `equipment`, or `prototype/output`; raises Invalid."""
    parts = text.split("/")
    if len(parts) > 2 or not all(map(namespace.is_id, parts)):
        raise Invalid(
            f"{text[:90]!r} names no stream",
            hint="write the name of an equipment, or PROTOTYPE/OUTPUT",
        )
    return text


def checked_signal(text: str) -> str:
    """Return `text` if it is `equipment/signal`, or `prototype/output/signal`; raises Invalid."""
    stream, _, signal = text.rpartition("/")
    try:
        checked_stream(stream)
        streams.checked_signal(signal)
    except Invalid as exc:
        raise Invalid(
            f"{text[:90]!r} names no signal",
            hint="write EQUIPMENT/SIGNAL, or PROTOTYPE/OUTPUT/SIGNAL",
        ) from exc
    return text


def signal_parts(text: str) -> tuple[str, str]:
    """The stream and the signal of a reference to a signal: `rig/Pressure` is of stream `rig`."""
    stream, _, signal = text.rpartition("/")
    return stream, signal


def checked_target(text: str) -> str:
    """Return `text` if it is `equipment` or `equipment/signal`; raises Invalid."""
    return checked_signal(text) if "/" in text else namespace.checked_id(text, "name")


StreamReference = Annotated[
    str,
    reading(checked_stream),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": f"^{ID}(/{ID})?$",
            "description": "a stream: the name of an equipment, or PROTOTYPE/OUTPUT",
            "examples": ["rig", "detector/score"],
        }
    ),
]
SignalReference = Annotated[
    str,
    reading(checked_signal),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": f"^{ID}(/{ID})?/{_SIGNAL}$",
            "description": "a signal: EQUIPMENT/SIGNAL, or PROTOTYPE/OUTPUT/SIGNAL",
            "examples": ["rig/Pressure", "detector/score/anomaly"],
        }
    ),
]

Target = Annotated[
    str,
    reading(checked_target),
    WithJsonSchema({"type": "string", "pattern": f"^{ID}(/{_SIGNAL})?$"}),
]


def input_value(value: Any) -> Any:
    """A number, or a text that names a signal."""
    if not isinstance(value, str):
        return value
    try:
        return float(value)
    except ValueError:
        return checked_signal(value.strip())


def _input(value: Any) -> Any:
    try:
        number_or_name = input_value(value)
    except Invalid as exc:
        raise ValueError(f"{exc}; or a number that it stays at") from exc
    if isinstance(number_or_name, float) and not math.isfinite(number_or_name):
        raise ValueError("it must be finite")
    return number_or_name


InputSource = Annotated[
    float | str,
    BeforeValidator(_input),
    WithJsonSchema(
        {
            "anyOf": [{"type": "number"}, {"type": "string"}],
            "description": "a number that the input stays at, or the signal that feeds it",
            "examples": [0.8, "controller/valve/opening"],
        }
    ),
]
