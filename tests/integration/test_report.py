"""The demo's report, as a browser shows it."""

import dataclasses
import re
from pathlib import Path

import numpy as np

from broker.batch import Gap, Series
from broker.clock import ns_of
from testbed.demo import report
from testbed.demo.rating import Rating
from testbed.demo.report import Evidence
from testbed.demo.result import DemoResult
from testbed.demo.verdict import Counters
from testbed_scenarios.detection import Detection
from tests.services import chromium

NOW_NS = ns_of("2026-11-30T14:36:00Z")
RESULT = DemoResult(
    samples_offered=3,
    samples_stored=3,
    counters=Counters(0, 0, 0, 0),
    latency_ms={"p50": 3.0, "p99": 7.0},
    rating=Rating(
        detection=Detection(hits=1, missed=1, false=0, quiet=1),
        has_labels=True,
        rows_played=3,
        rows_answered=2,
        published=3,
    ),
    report=Path("report.html"),
)
ABOUT = {"version": "0.1.0", "data": "a rig & its <signals>", "seed": "7", "prototype": "my.py"}


def series(values):
    count = len(values)
    return Series(np.arange(count) * 10**9, np.array(values, np.float64), np.zeros(count, np.uint8))


def evidence(**changed):
    return Evidence(
        **{
            "title": "Testbed demo",
            "about": ABOUT,
            "result": RESULT,
            "signals": {"Pressure": series([1.0, 2.0, 3.0]), "silent": series([])},
            "units": {"Pressure": "bar"},
            "scores": {"score": series([0.1, 0.9, 0.2])},
            "truth": [(10**9, 2 * 10**9)],
            "gaps": [Gap((), 0, 10**9, "source-unreachable")],
            "steps": {"Try yours:": "testbed try -- python 'my <file>.py'"},
        }
        | changed
    )


def written(path, **changed):
    """The text of a report with this evidence."""
    report.write(path, evidence(**changed), NOW_NS)
    return path.read_text()


def test_the_report_says_how_many_rows_have_an_answer(tmp_path):
    text = written(tmp_path / "report.html")
    assert "2 of 3 rows have an answer; the other 1 counts as no alarm." in text


def shown(path, folder):
    return chromium.show(path.as_uri(), folder).dom


def test_the_report_needs_nothing_but_itself(tmp_path):
    path = tmp_path / "report.html"
    written(path)
    page = shown(path, tmp_path / "profile")
    assert "nothing lost, duplicated, wrong or silent" in page
    assert "a rig &amp; its &lt;signals&gt;" in page
    assert "<svg" in page
    assert "<script" not in page
    assert 'src="' not in page
    assert "://" not in page


def test_every_colour_is_one_of_a_light_screen_and_of_a_dark_one(tmp_path):
    text = written(tmp_path / "report.html")
    schemes = re.findall(r":root {(.*?)}", text, re.DOTALL)
    assert len(schemes) == 2
    used = set(re.findall(r"var\((--[\w-]+)\)", text))
    assert {"--text", "--signal", "--score", "--truth", "--grid"} <= used
    for scheme in schemes:
        assert used == set(re.findall(r"(--[\w-]+):", scheme))


def test_two_questions_are_headings_and_answered_below_them(tmp_path):
    text = written(tmp_path / "report.html")
    headings = [re.sub(r"\s*<span.*", "", each) for each in re.findall("<h2>(.*)</h2>", text)]
    assert headings == ["Was anything lost?", "How good was the prototype?", "Next"]
    _, lost, good, following = text.split("<h2>")
    assert "No. All 3 samples that the machine offered are stored" in lost
    assert "3.0 ms / 7.0 ms" in lost
    assert "F1 0.667. Of 2 rows with a fault it flagged 1 and missed 1" in good
    assert "1 is perfect, 0 has found nothing" in good
    assert "<svg" in good
    assert "<code>testbed try -- python &#39;my &lt;file&gt;.py&#39;</code>" in following


def test_what_is_needed_to_repeat_the_run_stands_at_the_top(tmp_path):
    top, *_ = written(tmp_path / "report.html").split("<h2>")
    assert "<dt>date</dt><dd>2026-11-30 14:36:00 UTC</dd>" in top
    for name in ABOUT:
        assert f"<dt>{name}</dt>" in top


def test_problems_of_the_prototype_are_shown_with_its_last_lines(tmp_path):
    result = dataclasses.replace(
        RESULT, problems=("It ended. Its last lines:\n  <Error>",), notes=("It printed much.",)
    )
    text = written(tmp_path / "report.html", result=result)
    assert '<p class="problem">It ended. Its last lines:\n  &lt;Error&gt;</p>' in text
    assert '<p class="note">It printed much.</p>' in text


def test_a_prototype_without_an_output_leaves_the_machines_plots(tmp_path):
    path = tmp_path / "report.html"
    written(path, scores={})
    assert "Pressure" in shown(path, tmp_path / "profile")


def test_counters_that_are_not_zero_are_said_first(tmp_path):
    result = dataclasses.replace(RESULT, counters=Counters(1, 0, 0, 0))
    text = written(tmp_path / "report.html", result=result)
    assert "the counters are not zero" in text
    assert "1 lost, 0 duplicated" in text


def test_gaps_are_drawn_where_they_are_and_listed_with_their_causes(tmp_path):
    path = tmp_path / "report.html"
    gaps = [
        Gap(("Pressure",), 10**9, 10**9, "server-overflow"),
        Gap((), 0, 10**9, "<source>-unreachable"),
    ]
    written(path, gaps=gaps)
    page = shown(path, tmp_path / "profile")
    assert page.count("<title>Pressure: ") == 2
    assert page.count("<title>silent: ") == 1
    assert page.count("<title>score: ") == 0
    assert "<title>silent: &lt;source&gt;-unreachable, 1970-01-01T00:00:00.0" in page
    assert "gap: server-overflow" in page
    assert "<td>1.000</td><td>&lt;source&gt;-unreachable</td><td>all</td>" in page


def test_a_run_without_gaps_says_so(tmp_path):
    assert "nothing is known to be missing" in written(tmp_path / "report.html", gaps=[])


def test_many_gaps_are_listed_up_to_a_bound(tmp_path):
    gaps = [
        Gap(("Pressure",), at, at, "server-overflow") for at in range(report.MAX_LISTED_GAPS + 7)
    ]
    assert "and 7 more" in written(tmp_path / "report.html", gaps=gaps)
