"""The verdict: in the order of the file, in sentences, as an exit code and as JSON."""

import json

import numpy as np
from pydantic import TypeAdapter

from broker.batch import Series
from broker.clock import NS_PER_S
from testbed_scenarios import verdict
from testbed_scenarios.expectations.model import Expectation
from testbed_scenarios.observations import Observations

OBSERVED = Observations(
    start_ns=0,
    end_ns=10 * NS_PER_S,
    streams={"rig": {"P": Series(np.arange(10) * NS_PER_S, np.arange(10.0), np.zeros(10, "u1"))}},
)
LOW, HIGH = TypeAdapter(tuple[Expectation, ...]).validate_python(
    (
        {"name": "stays low", "signal": "rig/P", "always": {"below": 5}},
        {"signal": "rig/P", "eventually": {"above": 8}},
    )
)


def test_one_failed_expectation_fails_the_run():
    judged = verdict.judge([LOW, HIGH], OBSERVED)
    assert (judged.passed, judged.exit_code) == (False, 1)
    assert [result.passed for result in judged.results] == [False, True]
    assert judged.failed == judged.results[:1]
    assert judged.lines() == [
        "FAILED  stays low: expected always below 5: it was 5 at 5s for 5s, at worst 9",
        "passed  rig/P eventually above 8: it was above 8 after 9s",
        "Failed. 1 of 2 expectations failed.",
    ]


def test_a_run_passes_if_all_do():
    judged = verdict.judge([HIGH], OBSERVED)
    assert (judged.passed, judged.exit_code) == (True, 0)
    assert judged.summary == "Passed. The expectation passed."
    assert judged.metrics == {
        "rig/P eventually above 8: value": 9.0,
        "rig/P eventually above 8: after_s": 9.0,
    }
    assert verdict.judge([], OBSERVED).summary == "Passed. The scenario expects nothing."


def test_an_incident_fails_a_run_whose_expectations_pass():
    judged = verdict.judge([HIGH], OBSERVED, ["prototype 'detector' ended with exit code 1"])
    assert judged.exit_code == 1
    assert judged.lines()[-2:] == [
        "FAILED  prototype 'detector' ended with exit code 1",
        "Failed. The expectation passed, but something else failed.",
    ]


def test_a_verdict_is_json():
    written = json.loads(json.dumps(verdict.judge([LOW, HIGH], OBSERVED).as_json()))
    assert written["passed"] is False
    assert written["expectations"][0]["violation"] == {
        "from_ns": 5 * NS_PER_S,
        "to_ns": 10 * NS_PER_S,
    }
    assert len(written["hash"]) == 64
