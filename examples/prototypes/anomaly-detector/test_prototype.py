"""Tests of the prototype; `testbed prototype test` and `pytest` run them."""


def test_a_healthy_pump_is_no_anomaly(scenario):
    result = scenario("scenario.yaml", seed=8)
    assert result.passed, result
    history = result.history("anomaly-detector/score")
    learning = history["learning"].values
    assert learning[:60].all()
    assert not learning[60:].any()
