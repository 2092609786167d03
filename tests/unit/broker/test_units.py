"""Units of measure: what is known without the grammar of UCUM is in the grammar too."""

import pytest

from broker import units
from broker.errors import Invalid


def test_every_common_unit_is_one_of_the_grammar():
    assert [code for code in sorted(units.COMMON) if not units._is_ucum(code)] == []


@pytest.mark.parametrize("code", ["Cel/min", "kg.m2", "1", "%"])
def test_a_code_of_ucum_is_a_unit(code):
    assert units.checked_unit(code) == code


@pytest.mark.parametrize("text", ["", "degrees", "bar ", "x" * 41])
def test_another_text_is_none(text):
    with pytest.raises(Invalid, match="is no UCUM unit"):
        units.checked_unit(text)


@pytest.mark.parametrize(
    ("source", "target", "factor", "offset"),
    [
        ("kW", "W", 1e3, 0),
        ("bar", "bar", 1, 0),
        ("bar", "kPa", 100, 0),
        ("L/min", "m3/h", 0.06, 0),
        ("%", "1", 0.01, 0),
        ("Cel", "[degF]", 1.8, 32),
        ("Cel", "K", 1, 273.15),
    ],
)
def test_values_are_converted_by_a_factor_and_an_offset(source, target, factor, offset):
    assert units.conversion(source, target) == (factor, offset)


@pytest.mark.parametrize(
    ("source", "target", "words"),
    [
        ("bar", "Cel", "cannot be converted"),
        ("[pH]", "1", "cannot be converted"),
        ("B[V]", "V", "not proportional"),
        ("psi", "bar", "is no UCUM unit"),
    ],
)
def test_what_cannot_be_converted_is_refused(source, target, words):
    with pytest.raises(Invalid, match=words):
        units.conversion(source, target)
