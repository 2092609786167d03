"""Times and durations as people write them: -10m, yesterday, 2026-11-23, 1d12h.  Pure.

Days are those of UTC, as in everything that the testbed prints, so that a text means the same on a
command line, in a program and at the API, wherever each of them runs.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from broker import clock
from broker.clock import DAY_NS, DAY_S, HOUR_S, NS_PER_S
from broker.errors import Invalid

UNITS: Mapping[str, float] = {
    "w": 7 * DAY_S,
    "d": DAY_S,
    "h": HOUR_S,
    "min": 60.0,
    "m": 60.0,
    "s": 1.0,
    "ms": 0.001,
}
"""Seconds of each unit of a duration."""
DURATION_FORM = "a number with w, d, h, min or m, s or ms, such as 30d, 12h or 1d12h"
TIME_FORMS = (
    "write -10m, -2h or -1d for so long before now (+1d after it), now, today, yesterday, tomorrow,"
    " a date such as 2026-11-23, or 2026-11-23T12:00:00Z; days begin at midnight UTC"
)
Time = str | datetime
"""A time: a text in one of TIME_FORMS, or a datetime with a time zone."""

MOST_DURATION_NS = 366 * DAY_NS
"""Longest duration to a microsecond."""
_MOST_S = 10_000 * 366 * DAY_S
_UNIT_NS: Mapping[str, int] = {unit: round(size_s * NS_PER_S) for unit, size_s in UNITS.items()}
_PART = r"(\d+(?:\.\d+)?)(ms|min|m|s|h|d|w)"
_DURATION = re.compile(f"(?:{_PART})+", re.ASCII)
_RELATIVE = re.compile(r"(?:now)?\s*([+-])\s*(\S+)", re.ASCII)
_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_DAYS: Mapping[str, int] = {"yesterday": -1, "today": 0, "tomorrow": 1}
_WITHOUT_ZONE = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def seconds(text: str) -> float:
    """Return the seconds of a duration such as 1d12h, more than 0, to a millisecond.

    Raises Invalid, whose hint is the form of a duration.
    """
    parts = re.findall(_PART, text, re.ASCII) if _DURATION.fullmatch(text) else []
    total_s = sum(float(number) * UNITS[unit] for number, unit in parts)
    if not 0 < total_s <= _MOST_S:
        raise Invalid(f"{text[:40]!r} is no duration", hint=f"write {DURATION_FORM}")
    return round(total_s, 3)


def nanoseconds(text: str) -> int:
    """Return the nanoseconds of a duration such as 1d12h, 0s or 0.1ms, exactly.

    Raises Invalid for what is finer than a microsecond, which no source has, or longer than
    MOST_DURATION_NS.
    """
    parts = re.findall(_PART, text, re.ASCII) if _DURATION.fullmatch(text[:100]) else []
    exact_ns = sum(Decimal(number) * _UNIT_NS[unit] for number, unit in parts)
    if not parts or exact_ns > MOST_DURATION_NS:
        raise Invalid(f"{text[:40]!r} is no duration", hint=f"write {DURATION_FORM}")
    if exact_ns % 1_000:
        raise Invalid(f"{text[:40]!r} is no whole number of microseconds", hint="such as 0.1ms")
    return int(exact_ns)


def duration_text(duration_ns: int) -> str:
    """Return the exact text of a duration, 0 or more, in the fewest units: 1h30min, 2.5s, 250ms."""
    parts, rest_ns = [], duration_ns
    for unit in ("d", "h", "min"):
        number, rest_ns = divmod(rest_ns, _UNIT_NS[unit])
        if number:
            parts.append(f"{number}{unit}")
    if rest_ns:
        unit = "s" if rest_ns >= NS_PER_S else "ms"
        parts.append(f"{Decimal(rest_ns) / _UNIT_NS[unit]}{unit}")
    return "".join(parts) or "0s"


def resolve(time: Time, now_ns: int) -> int:
    """Return the instant, ns since 1970 UTC, that a time names for who writes it at `now_ns`.

    Raises Invalid, whose hint lists the forms of TIME_FORMS.
    """
    if isinstance(time, datetime):
        return _of_datetime(time)
    if not isinstance(time, str):  # a program in Python may give any object
        raise Invalid(
            f"{str(time)[:40]} is not an instant: it is of type {type(time).__name__}",
            hint=f"{TIME_FORMS}; or give a datetime with a time zone",
        )
    text = time.strip()
    word = text.lower()
    if word == "now":
        return now_ns
    if word in _DAYS:
        return now_ns // DAY_NS * DAY_NS + _DAYS[word] * DAY_NS
    if _WITHOUT_ZONE.fullmatch(text):
        raise Invalid(
            f"{text[:40]!r} is not an instant: its time zone is missing",
            hint=f"add Z for UTC, or an offset such as +01:00; {TIME_FORMS}",
        )
    try:
        if match := _RELATIVE.fullmatch(word):
            sign = -1 if match[1] == "-" else 1
            return now_ns + sign * round(seconds(match[2]) * 1_000) * (NS_PER_S // 1_000)
        return clock.ns_of(f"{text}T00:00:00Z" if _DATE.fullmatch(text) else text)
    except Invalid as exc:
        reason = exc.message.partition(" is not an instant: ")[2]
        why = f": {reason}" if reason else ""
        raise Invalid(f"{text[:40]!r} is not an instant{why}", hint=TIME_FORMS) from exc


def _of_datetime(time: datetime) -> int:
    if time.utcoffset() is None:
        raise Invalid(f"{time} has no time zone", hint="add tzinfo=UTC, or the zone it is meant in")
    since = time - _EPOCH
    return (since.days * DAY_S + since.seconds) * NS_PER_S + since.microseconds * 1_000


def checked_zone(text: str) -> str:
    """Return `text` if it names a time zone; raises Invalid."""
    try:
        ZoneInfo(text)
    except (ZoneInfoNotFoundError, ValueError, OSError) as exc:
        raise Invalid(
            f"{text[:80]!r} is no time zone", hint="such as Europe/Stockholm or UTC"
        ) from exc
    return text
