"""Conversions of a source's values that lose or assume something, by a word.  Pure."""

from enum import StrEnum


class Conversion(StrEnum):
    """A word of the field `convert` of a signal.

    What loses nothing is converted without a word: 5.0 to an integer, "21.5" to a number, a number
    to its text.
    """

    COMMA = "comma"
    """`21,5` is 21.5, and `1.234,5` is 1234.5."""
    UNIT = "unit"
    """`12.4 V` is 12.4: the text behind a number is left away."""
    HEX = "hex"
    """`0x1F` is 31."""
    TRUTH = "truth"
    """true and false are 1 and 0; a number is true unless it is 0."""
    ROUND = "round"
    """7.6 is the integer 8."""
