"""Cells of a table as numbers, truth values and times.  Pure."""

import math
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

from broker.errors import Invalid
from simulators.table_files.form import DecimalSign

MISSING = frozenset({"", "-", "--", "nan", "na", "n/a", "null", "none", "#n/a", "?"})
"""Cells that say that there is no value, in small letters."""
TRUE = frozenset({"true", "yes", "on", "wahr", "ja", "sant"})
FALSE = frozenset({"false", "no", "off", "falsch", "nein", "falskt", "nej"})
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_COMMA = re.compile(r"[+-]?(\d+,?\d*|,\d+)([eE][+-]?\d+)?", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_END = datetime(2262, 1, 1, tzinfo=UTC)  # an int64 of ns ends in April of that year
_CLOCK = (
    r"(?P<h>\d{1,2}):(?P<mi>\d\d)(:(?P<s>\d\d)([.,](?P<f>\d{1,9}))?)?(\s*(?P<half>[AaPp][Mm]))?"
)
_ZONE = r"\s*(?P<zone>Z|UTC|[+-]\d\d:?\d\d)?"
_ISO = re.compile(
    rf"(?P<y>\d{{4}})[-/.](?P<mo>\d{{1,2}})[-/.](?P<d>\d{{1,2}})[ T]{_CLOCK}{_ZONE}", re.ASCII
)
_DAY_FIRST = re.compile(
    rf"(?P<d>\d{{1,2}})[./-](?P<mo>\d{{1,2}})[./-](?P<y>\d{{4}})[ T]{_CLOCK}{_ZONE}", re.ASCII
)
_COMPACT = re.compile(
    r"(?P<y>\d{4})(?P<mo>\d\d)(?P<d>\d\d)T?(?P<h>\d\d)(?P<mi>\d\d)(?P<s>\d\d)(?P<zone>Z)?", re.ASCII
)
_DATE = re.compile(r"(?P<y>\d{4})-(?P<mo>\d\d)-(?P<d>\d\d)", re.ASCII)
EPOCH_UNITS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
"""Unit of a number since 1970 -> its nanoseconds."""
START = "seconds"
"""Times as seconds since the start of the recording."""
TimeReader = Callable[[str], int | None]
"""Reads a cell as ns since 1970 UTC, None if it is no such time."""


def is_missing(text: str) -> bool:
    """Whether a cell says that there is no value."""
    return text.lower() in MISSING


def is_number(text: str) -> bool:
    """Whether a cell is a number, with a decimal point or comma."""
    return bool(_NUMBER.fullmatch(text) or _COMMA.fullmatch(text))


def is_time(text: str) -> bool:
    """Whether a cell is a date with a time of day, in one of the forms that are known."""
    return any(form.fullmatch(text) for form in (_ISO, _DAY_FIRST))


def is_clock(text: str) -> bool:
    """Whether a cell is a time of day."""
    return bool(re.fullmatch(_CLOCK, text, re.ASCII))


def number(text: str, decimal: DecimalSign) -> float | None:
    """A finite number, None for any other text."""
    pattern = _COMMA if decimal is DecimalSign.COMMA else _NUMBER
    if pattern.fullmatch(text) is None:
        return None
    value = float(text.replace(",", "."))
    return value if math.isfinite(value) else None


def truth(text: str, decimal: DecimalSign) -> bool | None:
    """A truth value as a word, or as 0 and 1; None for any other text."""
    word = text.lower()
    if word in TRUE or word in FALSE:
        return word in TRUE
    value = number(text, decimal)
    return value == 1.0 if value in {0.0, 1.0} else None


def decimal_of(cells: Sequence[str], delimiter: str) -> DecimalSign:
    """The decimal sign of cells: a comma if more numbers have one than have a point."""
    if delimiter == ",":
        return DecimalSign.POINT
    commas = sum("," in cell and bool(_COMMA.fullmatch(cell)) for cell in cells)
    points = sum("." in cell and bool(_NUMBER.fullmatch(cell)) for cell in cells)
    return DecimalSign.COMMA if commas > points else DecimalSign.POINT


def time_reader(form: str, zone: str) -> TimeReader:
    """A reader of times in a form that was named; raises Invalid for a pattern that is none."""
    if (factor := EPOCH_UNITS.get("s" if form == START else form)) is not None:
        return _epoch_reader(factor)
    if "%" not in form:
        raise Invalid(
            f"time_format {form!r} is none",
            hint="write s, ms, us, ns, seconds, or a pattern such as %d.%m.%Y %H:%M:%S",
        )
    where = ZoneInfo(zone)

    def read(text: str) -> int | None:
        try:
            moment = datetime.strptime(text, form)  # noqa: DTZ007 - the zone follows
        except ValueError:
            return None
        return _ns(moment if moment.tzinfo else moment.replace(tzinfo=where), 0)

    return read


def guessed_reader(cells: Sequence[str], zone: str) -> tuple[str, TimeReader] | None:
    """The form of times that fits most cells, with its reader; None if none does.

    Raises Invalid where day and month cannot be told apart.
    """
    present = [cell for cell in cells if not is_missing(cell)]
    needed = max(1, len(present) * 9 // 10)
    for name, pattern in (("ISO 8601", _ISO), ("day.month.year", _DAY_FIRST)):
        matched = [match for cell in present if (match := pattern.fullmatch(cell))]
        if present and len(matched) >= needed:
            is_swapped = pattern is _DAY_FIRST and _month_first(matched)
            label = "month/day/year" if is_swapped else name
            return label, _text_reader(pattern, zone, is_swapped=is_swapped)
    for name, pattern in (("YYYYMMDDhhmmss", _COMPACT), ("dates", _DATE)):
        if present and sum(bool(pattern.fullmatch(cell)) for cell in present) >= needed:
            return name, _text_reader(pattern, zone, is_swapped=False)
    return _guessed_epoch(present, needed)


def _month_first(matches: Sequence[re.Match[str]]) -> bool:
    """Whether the first number of dates is the month; raises Invalid if that cannot be told."""
    if "." in matches[0][0][:3] or any(int(match["d"]) > 12 for match in matches):
        return False
    if any(int(match["mo"]) > 12 for match in matches):
        return True
    raise Invalid(
        f"{matches[0][0]!r}: which is the day, and which the month?",
        hint="say it: --columns FILE with time_format: '%d/%m/%Y %H:%M:%S', for instance",
    )


def _guessed_epoch(cells: Sequence[str], needed: int) -> tuple[str, TimeReader] | None:
    numbers = [float(cell) for cell in cells if _NUMBER.fullmatch(cell)]
    if not numbers or len(numbers) < needed:
        return None
    for unit, factor in EPOCH_UNITS.items():
        if all(946_684_800 <= value * factor / 10**9 <= 4_102_444_800 for value in numbers):
            return f"{unit} since 1970", _epoch_reader(factor)
    return None


def _epoch_reader(factor: int) -> TimeReader:
    def read(text: str) -> int | None:
        if _NUMBER.fullmatch(text) is None and _COMMA.fullmatch(text) is None:
            return None
        whole, _, part = text.replace(",", ".").partition(".")
        if part.isdigit() and whole.lstrip("+").isdigit():
            ns = int(whole) * factor + int(part) * factor // 10 ** len(part)
        else:
            ns = round(float(text.replace(",", ".")) * factor)
        return ns if 0 <= ns < 2**63 else None

    return read


def _text_reader(pattern: re.Pattern[str], zone: str, *, is_swapped: bool) -> TimeReader:
    where = ZoneInfo(zone)

    def read(text: str) -> int | None:
        match = pattern.fullmatch(text)
        return None if match is None else _moment(match.groupdict(), where, is_swapped=is_swapped)

    return read


def _moment(parts: dict[str, str | None], zone: ZoneInfo, *, is_swapped: bool) -> int | None:
    year, month, day, hour, minute = (
        int(parts.get(name) or 0) for name in ("y", "mo", "d", "h", "mi")
    )
    if is_swapped:
        month, day = day, month
    if half := parts.get("half"):
        hour = hour % 12 + (12 if half.lower() == "pm" else 0)
    try:
        moment = datetime(year, month, day, hour, minute, int(parts.get("s") or 0), tzinfo=zone)
        if (text := parts.get("zone")) is not None:
            moment = moment.replace(tzinfo=_zone_of(text))
    except ValueError:  # such as a 13th month
        return None
    return _ns(moment, int((parts.get("f") or "").ljust(9, "0")))


def _zone_of(text: str) -> tzinfo | None:
    return datetime.fromisoformat(f"2000-01-01T00:00:00{'Z' if text == 'UTC' else text}").tzinfo


def _ns(moment: datetime, fraction_ns: int) -> int | None:
    if not _EPOCH <= moment < _END:
        return None
    return (moment - _EPOCH) // timedelta(microseconds=1) * 1000 + fraction_ns
