"""Results of runs: JUnit, the report, JSON; whatever expectations and incidents say."""

import re
from collections import Counter
from xml.etree import ElementTree as ET

import numpy as np
import orjson
import pytest

from broker.batch import Series
from broker.clock import WallClock
from broker.streams import Signal
from testbed.scenario import junit, loading, report
from testbed.scenario import result as run_result
from testbed.scenario.clock_statistics import ClockStatistics
from testbed.scenario.plan import RunPlan
from testbed.scenario.run_end import RunEnd
from testbed_scenarios import matrix
from testbed_scenarios.observations import Observations, TruthInterval

S = 1_000_000_000
TEXT = """scenario: valve
duration: 60s
equipment: {rig: {model: pump-rig}}
prototypes:
  detector: {command: python my.py, inputs: {rig: rig}, outputs: [score]}
expectations:
  - {name: stays low, signal: detector/score/score, always: {below: 30}}
  - {name: "is <high> & \\x07", signal: detector/score/score, eventually: {above: 50}}
seeds: 1..2
"""


@pytest.fixture
def loaded(tmp_path):
    file = tmp_path / "valve.yaml"
    file.write_text(TEXT)
    return loading.load(file, WallClock())


def judged(loaded, *incidents, number=0):
    variant = matrix.variants(loaded.scenario)[number]
    scenario = variant.scenario
    plan = RunPlan(scenario=scenario, base=loaded.base, folder=loaded.base, label=variant.label)
    times = scenario.start_ns + np.arange(60) * S
    values = np.arange(60.0)
    good = np.zeros(60, np.uint8)
    observed = Observations(
        start_ns=scenario.start_ns,
        end_ns=plan.end_ns,
        streams={
            "rig": {"Pressure": Series(times, values, good)},
            "detector/score": {"score": Series(times, values, good)},
        },
        signals={"rig": {"Pressure": Signal("Pressure", unit="bar")}},
        truth={"rig": (TruthInterval("valve", scenario.start_ns + 20 * S, plan.end_ns),)},
    )
    statistics = ClockStatistics(virtual_ns=60 * S, wall_ns=S, slowest=Counter({"detector": 60}))
    end = RunEnd(
        plan=plan,
        observed=observed,
        statistics=statistics,
        incidents=incidents,
        programs={},
        started_s=1.5,
        wall_s=3.0,
        notes=("the FMU <tank> ran without a limit",),
    )
    return run_result.judged(end, "ab" * 32)


def test_junit_has_a_case_for_each_expectation_and_one_for_the_run(loaded):
    results = [judged(loaded), judged(loaded, "prototype 'detector' ended\nTraceback", number=1)]
    root = ET.fromstring(junit.text(loaded, results))  # noqa: S314 - our own text
    assert (root.tag, root.get("tests"), root.get("failures")) == ("testsuites", "5", "3")
    first, second = root.findall("testsuite")
    assert first.get("name") == "valve, seed 1"
    names = [case.get("name") for case in first.findall("testcase")]
    assert names == ["stays low (seed 1)", "is <high> & \N{REPLACEMENT CHARACTER} (seed 1)"]
    failure = first.find("testcase/failure")
    assert failure is not None
    assert failure.get("message") in failure.text
    assert "30" in failure.text
    last = second.findall("testcase")[-1]
    assert last.find("failure").text.endswith("Traceback")
    assert {case.get("classname") for case in root.iter("testcase")} == {"valve"}
    assert {case.get("file") for case in root.iter("testcase")} == {str(loaded.path)}


def test_a_report_is_one_file_with_the_moments_of_each_failure(loaded, tmp_path):
    path = tmp_path / "out.html"
    report.write(path, loaded, [judged(loaded, "it <broke>"), judged(loaded, number=1)], 0)
    page = path.read_text()
    assert "stays low" in page
    assert "is &lt;high&gt; &amp;" in page
    assert "it &lt;broke&gt;" in page
    assert page.count("the FMU &lt;tank&gt; ran without a limit") == 2
    assert page.count("<svg") == 4  # a failure and the whole of each run
    assert not re.search(r"(?:src|href)=\"(?!#)", page)
    assert "detector in 60" in page
    assert "60 samples of detector/score" in page
    assert page.count("var(--truth)") > 2


def test_a_result_is_json_with_what_repeats_it(loaded):
    document = orjson.loads(orjson.dumps(judged(loaded).as_json()))
    assert document["passed"] is False
    assert [each["passed"] for each in document["expectations"]] == [False, True]
    assert document["seed"] == 1
    assert document["samples"] == {"rig": 60, "detector/score": 60}
    assert document["scenario_sha256"] == "ab" * 32
    assert document["versions"]["testbed"]
    assert document["hash"] == judged(loaded).verdict.hash
    assert document["notes"] == ["the FMU <tank> ran without a limit"]


def test_expectations_of_one_name_are_cases_of_their_own(tmp_path):
    file = tmp_path / "valve.yaml"
    file.write_text(TEXT.replace('"is <high> & \\x07"', "stays low"))
    loaded = loading.load(file, WallClock())
    root = ET.fromstring(junit.text(loaded, [judged(loaded)]))  # noqa: S314 - our own text
    names = [case.get("name") for case in root.iter("testcase")]
    assert names == ["stays low (seed 1)", "stays low (seed 1) [2]"]
