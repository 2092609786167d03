"""Runs to compare are counted before the testbed is asked."""

import pytest
from pydantic import ValidationError

from broker import pydantic_checks
from broker.errors import Invalid
from testbed.client import runs
from testbed_api.http.routes.runs import ComparisonWanted


@pytest.mark.parametrize("count", [1, 11])
async def test_two_to_ten_runs_are_compared(count):
    with pytest.raises(Invalid, match="name two to ten runs") as refused:
        await runs.fetch_comparison(range(1, count + 1))
    assert "testbed runs compare 12 13" in refused.value.hint


@pytest.mark.parametrize("ids", ["1", "0,1", "1,", "1,2\n", ",".join("1" * 11)])
def test_the_api_says_what_it_compares(ids):
    assert ComparisonWanted(ids="12,13").numbers == [12, 13]
    with pytest.raises(ValidationError) as refused:
        ComparisonWanted(ids=ids)
    sentence = pydantic_checks.first_sentence(refused.value)
    assert sentence == "ids: name two to ten runs by their numbers, such as 12,13"
