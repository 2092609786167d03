"""Figures of a run's record with their origin, and records side by side."""

import pytest

from broker.errors import Invalid
from broker.responses.run_document import RunDocument
from broker.runs import checks, comparison, evidence, verdict

DOCUMENT = RunDocument.model_validate(RunDocument.example())
(RIG,) = DOCUMENT.streams
(EXPECTED,) = DOCUMENT.expectations
(USED,) = EXPECTED.samples
(GAP,) = RIG.gaps


def with_expectation(**changes):
    return DOCUMENT.model_copy(update={"expectations": [EXPECTED.model_copy(update=changes)]})


def figures(document):
    return {each.id: each for each in evidence.figures(document)}


def gaps_of(*gaps, **changes):
    """The gaps that the evidence names of an expectation on the rig's Pressure."""
    used = USED.model_copy(update={"signals": ["Pressure"], **changes})
    rig = RIG.model_copy(update={"gaps": list(gaps)})
    document = with_expectation(samples=[used]).model_copy(update={"streams": [rig]})
    (sources,) = figures(document)["expectation/1/f1"].samples
    return sources.gaps


def test_a_figure_names_the_gaps_of_its_signals_within_its_span():
    other = GAP.model_copy(update={"signals": ["Temperature"]})
    whole = GAP.model_copy(update={"signals": []})
    assert gaps_of(GAP, other, whole) == [GAP, whole]
    assert gaps_of(GAP, other, signals=[]) == [GAP, other]
    late = {"from_": "2026-11-23T12:00:05.000000001Z", "to": "2026-11-23T12:01:00Z"}
    assert gaps_of(GAP, **late) == []
    at_its_end = late | {"from_": GAP.to}
    assert gaps_of(GAP, **at_its_end) == [GAP]


@pytest.mark.parametrize(
    ("kind", "name", "unit"),
    [
        ("detection", "f1", "1"),
        ("detection", "delay_s", "s"),
        ("detection", "false_alarms_per_s", "/s"),
        ("control", "energy_j", "J"),
        ("resources", "memory_bytes", "B"),
        ("always", "value", "bar"),
        ("eventually", "after_s", "s"),
        ("count", "count", "1"),
    ],
)
def test_a_figure_has_its_unit(kind, name, unit):
    document = with_expectation(kind=kind, observed={name: 1.5}, unit="bar")
    assert figures(document)[f"expectation/1/{name}"].unit == unit


def test_a_figure_of_several_streams_names_each_source():
    score = RIG.model_copy(update={"name": "watch/score", "source": "recorded"})
    used = [USED, USED.model_copy(update={"stream": "watch/score"})]
    document = with_expectation(samples=used).model_copy(update={"streams": [RIG, score]})
    figure = figures(document)["expectation/1/f1"]
    assert figure.sources == ["recorded", "simulated"]
    assert [each.stream for each in figure.samples] == ["rig", "watch/score"]
    assert figures(document)["run/real-time"].sources == []


def test_expectations_of_one_name_are_told_apart():
    document = DOCUMENT.model_copy(update={"expectations": [EXPECTED, EXPECTED]})
    names = [each.name for each in evidence.figures(document)]
    assert len(set(names)) == len(names)
    assert f"{EXPECTED.name} (2): f1" in names


def test_rows_that_a_run_lacks_have_no_value_there_and_differ():
    other = DOCUMENT.model_copy(
        update={"settings": {"duration": "60s"}, "expectations": [], "passed": True}
    )
    rows = {each.name: each for each in comparison.inputs([DOCUMENT, other])}
    assert rows["duration"].values == [None, "60s"]
    assert rows["duration"].differs
    assert not rows["architecture"].differs
    names = [each.name for each in comparison.inputs([DOCUMENT, other])]
    assert set(names[:2]) == {"duration", "equipment.rig.model"}
    compared = {each.name: each for each in comparison.figures([DOCUMENT, other])}
    assert compared[f"{EXPECTED.name}: f1"].values == [0.9, None]


def test_a_run_passes_if_each_expectation_does_and_nothing_else_happened():
    assert verdict.passes([], [])
    assert verdict.passes([True, True], ())
    assert not verdict.passes([True, False], [])
    assert not verdict.passes([True], ["it broke"])
    assert not verdict.passes([], [""])


def test_evidence_without_end_is_refused_before_it_is_made():
    many = [EXPECTED.model_copy(update={"observed": {str(n): 1.0 for n in range(50)}})] * 2_000
    with pytest.raises(Invalid, match=r"record\.expectations: their evidence has [\d,]+ parts"):
        checks.check(DOCUMENT.model_copy(update={"expectations": many}))
    with pytest.raises(Invalid, match=r"record\.streams: 'rig' stands twice"):
        checks.check(DOCUMENT.model_copy(update={"streams": [RIG, RIG]}))
