"""The census of samples: how long it lasts, and which signals had too few."""

import numpy as np
import pytest

from gateway.links.opcua import sample_census
from gateway.links.opcua.sample_census import SampleCensus


def test_samples_are_counted_by_handle_and_unknown_ones_ignored() -> None:
    census = SampleCensus(3)
    census.add(np.array([1, 1, 3, 9], np.uint32))
    census.add(np.array([1], np.uint32))
    assert census.counts.tolist() == [0, 3, 0, 1]


@pytest.mark.parametrize(
    ("periods_s", "seconds"),
    [([], 0.0), ([0.0], 0.0), ([0.1, 0.5], 10.0), ([0.1, 3.0], 30.0), ([12.0], 60.0), ([60], 0.0)],
)
def test_a_census_lasts_ten_periods_within_its_bounds(
    periods_s: list[float], seconds: float
) -> None:
    assert sample_census.window_s(periods_s) == seconds


@pytest.mark.parametrize(
    ("count", "lasted_s", "period_s", "few"),
    [
        (4, 16.0, 0.25, True),
        (64, 16.0, 0.25, False),
        (50, 16.0, 0.25, False),
        (0, 10.0, 0.1, True),
        (0, 10.0, 0.0, False),
        (0, 10.0, 5.0, False),  # two are due: they may come later
    ],
)
def test_too_few_samples_are_less_than_seven_of_ten(
    count: int, lasted_s: float, period_s: float, *, few: bool
) -> None:
    assert sample_census.are_too_few(count, lasted_s, period_s) is few
