"""Conversion of a value to its signal's dtype before it is checked, for every protocol.  Pure."""

import math
import re
from collections.abc import Set as AbstractSet
from typing import Any

from broker.streams import ArrayOf, Dtype, ValueType
from gateway.links.values import Unfit
from gateway.mapping.conversions import Conversion

BOOLEANS = {"true": True, "on": True, "1": True, "false": False, "off": False, "0": False}
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_BEFORE_UNIT = re.compile(
    rf"({_NUMBER.pattern})\s*(?![xX][0-9a-fA-F])[^\d\s_.,:;/-].{{0,19}}", re.ASCII
)
_HEX = re.compile(r"[+-]?0[xX][0-9a-fA-F]+", re.ASCII)
_GROUPS = re.compile(r"[+-]?\d{1,3}([. ]\d{3})+(,\d+)?", re.ASCII)
Words = AbstractSet[Conversion]
NONE: Words = frozenset()


def converted(value: Any, dtype: ValueType, words: Words = NONE) -> Any:
    """Convert a value as far as nothing is lost, and as far as the words of the mapping allow.

    A value that it cannot convert is returned as it is, for `values.read` to refuse.  Raises Unfit
    for a text that is no number or truth value.
    """
    if isinstance(dtype, ArrayOf):
        if isinstance(value, list):
            return [_scalar(each, dtype.dtype, words) for each in value]
        return value
    return _scalar(value, dtype, words)


def _scalar(value: Any, dtype: Dtype, words: Words) -> Any:
    kind = type(value)
    if dtype is Dtype.STRING:
        return _as_text(value) if kind in {int, float, bool} else value
    if kind is str:
        value = of_text(value, dtype, words)
        kind = type(value)
    if dtype is Dtype.BOOL:
        return value != 0 if kind in {int, float} and Conversion.TRUTH in words else value
    if kind is bool:
        return int(value) if Conversion.TRUTH in words else value
    if dtype is Dtype.INT64 and kind is float and math.isfinite(value):
        if value.is_integer():
            return int(value)
        return round(value) if Conversion.ROUND in words else value
    return value


def of_text(text: str, dtype: Dtype, words: Words = NONE) -> Any:
    """The number or truth value that a text is; raises Unfit."""
    word = text.strip().strip('"').strip()
    if dtype is Dtype.BOOL:
        if (truth := BOOLEANS.get(word.lower())) is not None:
            return truth
        if Conversion.TRUTH not in words:
            raise Unfit(f"its text is no {dtype}")
    elif Conversion.TRUTH in words and word.lower() in {"true", "false", "on", "off"}:
        return BOOLEANS[word.lower()]
    number = _number(word, dtype, words)
    if number is None:
        raise Unfit(f"its text is no {dtype}{_cure(word, words)}")
    return number


def _number(word: str, dtype: Dtype, words: Words) -> int | float | None:
    if Conversion.HEX in words and _HEX.fullmatch(word):
        return int(word, 16)
    if Conversion.COMMA in words and "," in word:
        if _GROUPS.fullmatch(word):
            word = word.replace(".", "").replace(" ", "")
        word = word.replace(",", ".", 1)
    if Conversion.UNIT in words and (match := _BEFORE_UNIT.fullmatch(word)):
        word = match[1]
    if _NUMBER.fullmatch(word) is None:
        return None
    is_whole = dtype is Dtype.INT64 and word.lstrip("+-").isdigit()
    return int(word) if is_whole else float(word)


def _cure(word: str, words: Words) -> str:
    """The word of the mapping with which a text would be read; empty if there is none."""
    for cure in (Conversion.COMMA, Conversion.HEX, Conversion.UNIT):
        if cure not in words and _number(word, Dtype.FLOAT64, {*words, cure}) is not None:
            return f"; write `convert: {' '.join(sorted({*words, cure}))}` to read it"
    return ""


def _as_text(value: float) -> str:
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else repr(value)
