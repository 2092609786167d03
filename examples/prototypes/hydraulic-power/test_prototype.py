"""Tests of the prototype; `testbed prototype test` and `pytest` run them."""

import numpy as np
import pytest
from prototype import derived


def test_a_bar_at_sixty_litres_a_minute_are_a_hundred_watts():
    values = derived(*(np.array([value]) for value in (1.0, 60.0, 230.0, 1.0)))
    assert values["Hydraulic Power"][0] == pytest.approx(100)


def test_a_motor_that_stands_still_has_no_efficiency():
    values = derived(*(np.array([value]) for value in (1.0, 0.0, 0.0, 0.0)))
    assert values["Efficiency"][0] == 0


def test_what_is_published_follows_the_pump(scenario):
    result = scenario("scenario.yaml", seed=4)
    assert result.passed, result
