"""Results of runs: JUnit, the report, JSON; whatever expectations and incidents say."""

import hashlib
import re
from collections import Counter
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import numpy as np
import orjson
import pytest

from broker.batch import Series
from broker.clock import WallClock
from broker.responses.run_document import RunDocument
from broker.runs import checks, evidence
from broker.streams import Signal
from testbed.scenario import junit, loading, report, run_document
from testbed.scenario import result as run_result
from testbed.scenario.clock_statistics import ClockStatistics
from testbed.scenario.plan import RunPlan
from testbed.scenario.result import RunOrigin
from testbed.scenario.run_end import RunEnd
from testbed.scenario.run_inputs import HashedFile, RunInputs
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
    origin = RunOrigin(
        scenario_text=loaded.text,
        inputs=RunInputs(code=(HashedFile(owner="detector", path="my.py", sha256="cd" * 32),)),
        speed=None,
        began_ns=S,
        ended_ns=4 * S,
    )
    return run_result.judged(end, origin)


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
    assert "waited for detector" in page
    assert "60 samples of detector/score" in page
    assert page.count("var(--truth)") > 2


def test_a_result_is_json_with_what_repeats_it(loaded):
    document = orjson.loads(orjson.dumps(judged(loaded).as_json()))
    assert document["passed"] is False
    assert [each["passed"] for each in document["expectations"]] == [False, True]
    assert document["seed"] == 1
    assert document["samples"] == {"rig": 60, "detector/score": 60}
    assert document["scenario_sha256"] == hashlib.sha256(loaded.text.encode()).hexdigest()
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


class FiguresOfReport(HTMLParser):
    """Collects the texts with a digit of a page: those of figures by id, and all others."""

    EMPTY = frozenset({"meta", "br", "i"})

    def __init__(self) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.others: list[str] = []
        self._open: list[tuple[str, bool]] = []

    def handle_starttag(self, tag, attributes):
        named = dict(attributes)
        if "data-figure" in named:
            self.ids.add(named["data-figure"])
        is_known = "data-figure" in named or "data-input" in named
        if tag not in self.EMPTY:
            self._open.append((tag, is_known))

    def handle_endtag(self, tag):
        if tag in self.EMPTY:
            return
        while self._open.pop()[0] != tag:
            pass

    def handle_data(self, text):
        is_known = any(known for _, known in self._open)
        is_head = any(tag in {"style", "title"} for tag, _ in self._open)
        if re.search(r"\d", text) and not is_known and not is_head:
            self.others.append(text)


def test_every_figure_of_a_report_is_in_the_evidence(loaded):
    results = [judged(loaded, "it broke after 3 s"), judged(loaded, number=1)]
    walked = FiguresOfReport()
    walked.feed(report.text(loaded, results, 0))
    assert walked.others == []
    for result in results:
        figures = evidence.figures(run_document.of(result))
        ids = [each.id for each in figures]
        assert walked.ids <= set(ids)
        assert len(set(ids)) == len(ids)


def test_each_figure_says_what_it_was_computed_from(loaded):
    document = run_document.of(judged(loaded))
    checks.check(document)
    by_id = {each.id: each for each in evidence.figures(document)}
    value = by_id["expectation/1/value"]
    (used,) = value.samples
    assert (used.stream, used.samples, used.source) == ("detector/score", 60, "simulated")
    streams = {each.name: each for each in document.streams}
    assert used.sha256 == streams["detector/score"].sha256 != streams["rig"].sha256
    assert [each.name for each in value.code] == ["my.py"]
    assert (value.scenario_sha256, value.seed) == (document.scenario.sha256, 1)
    assert value.definition == "docs/reference/verdicts.md#expectations"
    assert by_id["stream/rig/samples"].value == 60
    assert document.settings["equipment.rig.model"] == "pump-rig"
    assert document.settings["expectations.0.always.below"] == 30
    assert by_id["run/real-time"].samples == []


def test_a_record_is_the_same_after_it_was_sent_as_json(loaded):
    document = run_document.of(judged(loaded, "it broke"))
    received = RunDocument.model_validate(orjson.loads(orjson.dumps(document.model_dump())))
    assert checks.sha256(received) == checks.sha256(document)
