"""The demo's report, as a browser shows it."""

import numpy as np

from broker.batch import Gap, Series
from testbed.demo import report
from testbed.demo.report import Evidence
from tests.services import chromium


def series(values):
    count = len(values)
    return Series(np.arange(count) * 10**9, np.array(values, np.float64), np.zeros(count, np.uint8))


def evidence(**changed):
    return Evidence(
        **{
            "title": "Testbed demo",
            "subtitle": "a rig & its <signals>",
            "signals": {"Pressure": series([1.0, 2.0, 3.0]), "silent": series([])},
            "units": {"Pressure": "bar"},
            "scores": {"score": series([0.1, 0.9, 0.2])},
            "truth": [(10**9, 2 * 10**9)],
            "gaps": [Gap((), 0, 10**9, "source-unreachable")],
            "facts": {"samples offered": "3"},
            "clean": True,
        }
        | changed
    )


def shown(path, folder):
    return chromium.show(path.as_uri(), folder).dom


def test_the_report_needs_nothing_but_itself(tmp_path):
    path = tmp_path / "report.html"
    report.write(path, evidence())
    page = shown(path, tmp_path / "profile")
    assert "nothing lost, duplicated, wrong or silent" in page
    assert "a rig &amp; its &lt;signals&gt;" in page
    assert "<svg" in page
    assert "<script" not in page
    assert 'src="' not in page


def test_counters_that_are_not_zero_are_said_first(tmp_path):
    path = tmp_path / "report.html"
    report.write(path, evidence(clean=False))
    assert "the counters are not zero" in path.read_text()


def test_gaps_are_drawn_where_they_are_and_listed_with_their_causes(tmp_path):
    path = tmp_path / "report.html"
    gaps = [
        Gap(("Pressure",), 10**9, 10**9, "server-overflow"),
        Gap((), 0, 10**9, "<source>-unreachable"),
    ]
    report.write(path, evidence(gaps=gaps))
    page = shown(path, tmp_path / "profile")
    assert page.count("<title>Pressure: ") == 2
    assert page.count("<title>silent: ") == 1
    assert page.count("<title>score: ") == 0
    assert "<title>silent: &lt;source&gt;-unreachable, 1970-01-01T00:00:00.0" in page
    assert "gap: server-overflow" in page
    assert "<td>1.000</td><td>&lt;source&gt;-unreachable</td><td>all</td>" in page


def test_a_run_without_gaps_says_so(tmp_path):
    path = tmp_path / "report.html"
    report.write(path, evidence(gaps=[]))
    assert "nothing is known to be missing" in path.read_text()


def test_many_gaps_are_listed_up_to_a_bound(tmp_path):
    path = tmp_path / "report.html"
    gaps = [
        Gap(("Pressure",), at, at, "server-overflow") for at in range(report.MAX_LISTED_GAPS + 7)
    ]
    report.write(path, evidence(gaps=gaps))
    assert "and 7 more" in path.read_text()
