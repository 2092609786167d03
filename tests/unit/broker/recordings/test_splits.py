"""Parts of a recording by time."""

import pytest

from broker.clock import NS_PER_S
from broker.errors import Invalid
from broker.recordings import splits


def spans(text, to_ns=100):
    return [(each.name, each.to_ns) for each in splits.parse(text, 0, to_ns)]


def test_parts_follow_one_another_and_cover_the_span():
    assert spans("70/15/15") == [("train", 70), ("validation", 85), ("test", 100)]
    assert spans("33.4/33.3/33.3", 10**18 + 1)[-1] == ("test", 10**18 + 1)
    parts = splits.parse("70/15/15", 5 * NS_PER_S, 25 * NS_PER_S)
    assert [each.from_ for each in parts][1:] == [each.to for each in parts][:-1]


def test_a_part_of_nothing_is_left_out():
    assert spans("80/0/20") == [("train", 80), ("test", 100)]
    assert spans("0/0/100") == [("test", 100)]


@pytest.mark.parametrize(
    "text", ["", "70", "70/30", "70/20/20", "-10/100/10", "nan/50/50", "a/b/c", "inf/0/0"]
)
def test_three_parts_are_100_percent(text):
    with pytest.raises(Invalid, match="split"):
        splits.parse(text, 0, 100)


def test_the_part_of_a_time_is_an_expression_of_sql():
    assert splits.case_sql(splits.parse("80/0/20", 0, 100), "t") == (
        "CASE WHEN t < 80 THEN 'train' ELSE 'test' END"
    )
    assert splits.case_sql(splits.parse("0/0/100", 0, 100), "t") == "'test'"
