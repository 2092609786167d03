"""Units in the names that machines and sensors give: `Wear [µm]` is Wear, in um of UCUM.  Pure."""

import re
import unicodedata
from typing import NamedTuple

from broker.errors import Invalid
from broker.units import checked_unit

_SQUARE = re.compile(r"^(?P<name>.*?\S)\s*\[\s*(?P<unit>[^\[\]]{1,40}?)\s*\]\s*$", re.DOTALL)
_ROUND = re.compile(r"^(?P<name>.*?\S)\s*\(\s*(?P<unit>[^()]{1,40}?)\s*\)\s*$", re.DOTALL)

_SIGNS = (
    ("\N{DEGREE SIGN}C", "Cel"),
    ("\N{DEGREE SIGN}F", "[degF]"),
    ("\N{DEGREE SIGN}", "deg"),
    ("\N{GREEK SMALL LETTER MU}", "u"),
    ("\N{GREEK CAPITAL LETTER OMEGA}", "Ohm"),
    ("\N{DOT OPERATOR}", "."),
    ("\N{MIDDLE DOT}", "."),
    ("*", "."),
    ("^", ""),
    (" ", ""),
)
"""Sign -> UCUM, after Unicode's NFKC has made one of those that look alike, and 2 of a square."""
_WORDS = {
    "degc": "Cel",
    "degf": "[degF]",
    "rpm": "/min",
    "u/min": "/min",
    "1/min": "/min",
    "min-1": "/min",
    "1/s": "/s",
    "kwh": "kW.h",
    "wh": "W.h",
    "ah": "A.h",
    "kva": "kV.A",
    "va": "V.A",
    "psi": "[psi]",
    "inch": "[in_i]",
    "ft": "[ft_i]",
    "sec": "s",
    "hr": "h",
    "-": "1",
    "pcs": "1",
}
"""Unit in small letters -> UCUM, where people write it otherwise."""
_CASED = {"Nm": "N.m"}
"""Units whose letters' case tells them apart: nm is a length."""
_AMBIGUOUS = {"C", "F"}
"""Coulomb and farad in UCUM, and mostly Celsius and Fahrenheit where people wrote them."""


class NamedUnit(NamedTuple):
    """A name without its unit.

    unit: UCUM code, None for none.  unknown: a text in the unit's place that is no UCUM; then it is
    in the name still.
    """

    name: str
    unit: str | None = None
    unknown: str = ""


def split(text: str) -> NamedUnit:
    """Split a name and the unit in brackets behind it.

    In round brackets only what has a sign that no word has, such as °C and %, is taken for a unit:
    `Motor (A)` may be the first of two motors; and `Axis[1]` is one of several.
    """
    match = _SQUARE.match(text)
    if match and not match["unit"].isdecimal():
        unit = ucum(match["unit"])
        return NamedUnit(match["name"], unit) if unit else NamedUnit(text, unknown=match["unit"])
    match = _ROUND.match(text)
    if match and not match["unit"].isalnum():
        unit = ucum(match["unit"])
        return NamedUnit(match["name"], unit) if unit else NamedUnit(text)
    return NamedUnit(text)


def ucum(text: str) -> str | None:
    """The UCUM code of a unit as people write it, None if it is not known."""
    written = text.strip().replace("\N{MASCULINE ORDINAL INDICATOR}", "\N{DEGREE SIGN}")
    written = unicodedata.normalize("NFKC", written)
    for sign, code in _SIGNS:
        written = written.replace(sign, code)
    known = _CASED.get(written) or _WORDS.get(written.lower())
    if known is not None or written in _AMBIGUOUS:
        return known
    try:
        return checked_unit(written)
    except Invalid:
        return None
