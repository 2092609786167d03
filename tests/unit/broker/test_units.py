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
