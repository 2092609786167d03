"""Tests of the prototype; `testbed prototype test` and `pytest` run them."""

import numpy as np


def test_a_leak_makes_the_predicted_part_thicker(scenario):
    result = scenario("scenario.yaml", seed=8)
    assert result.passed, result
    predicted = result.history("quality-model/quality")["thickness"]
    begin_ns = predicted.time_ns[0]
    minutes = (predicted.time_ns - begin_ns) / 60e9
    usual = np.median(predicted.values[minutes < 3.5])
    leaking = np.median(predicted.values[(minutes > 5) & (minutes < 7)])
    assert leaking > usual
