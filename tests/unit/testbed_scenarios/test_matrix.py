"""The runs of a scenario: every combination of swept values, with every seed."""

import pytest

from broker.errors import Invalid
from testbed_scenarios import matrix
from testbed_scenarios.model import Scenario
from testbed_scenarios.quantities import PhysicalValue

FIELDS = {
    "scenario": "a",
    "duration": "10min",
    "seed": 4,
    "equipment": {"rig": {"model": "pump-rig"}},
    "timeline": [{"fault": "valve", "on": "rig", "from": "60s", "to": "120s"}],
}
OPENING = "equipment.rig.parameters.shut_opening"
SEVERITY = "timeline.0.severity"


def scenario(**fields: object) -> Scenario:
    return Scenario.from_document({**FIELDS, **fields})


def test_a_scenario_without_a_sweep_is_one_run_without_a_label():
    (run,) = matrix.variants(scenario())
    assert (run.scenario, run.seed, run.label, run.values) == (scenario(), 4, "", {})


def test_every_combination_runs_with_every_seed():
    swept = scenario(sweep={OPENING: [0.6, 0.7], SEVERITY: [0.5, 1]}, seeds="1..3")
    runs = matrix.variants(swept)
    assert len(runs) == matrix.run_count(swept) == 12
    assert [run.label for run in runs[:4]] == [
        "shut_opening=0.6, severity=0.5, seed 1",
        "shut_opening=0.6, severity=0.5, seed 2",
        "shut_opening=0.6, severity=0.5, seed 3",
        "shut_opening=0.6, severity=1, seed 1",
    ]
    last = runs[-1].scenario
    assert last.equipment["rig"].parameters == {"shut_opening": PhysicalValue(0.7)}
    assert (last.timeline[0].severity, last.seed, last.sweep) == (1.0, 3, {})
    assert len({run.label for run in runs}) == 12


def test_seeds_of_the_caller_override_those_of_the_scenario():
    assert [run.seed for run in matrix.variants(scenario(seeds="1..3"), [8, 9])] == [8, 9]


def test_fields_that_end_alike_are_labelled_by_their_path():
    fault = {"fault": "valve", "on": "rig", "from": "200s", "to": "220s"}
    swept = scenario(
        timeline=[*FIELDS["timeline"], fault],
        sweep={SEVERITY: [0.5], "timeline.1.severity": [0.1]},
    )
    assert matrix.variants(swept)[0].label == "timeline.0.severity=0.5, timeline.1.severity=0.1"


def test_a_million_runs_are_refused_with_their_number():
    swept = scenario(sweep={OPENING: list(range(1000)), SEVERITY: list(range(100))}, seeds="1..10")
    with pytest.raises(Invalid, match="these are 1,000,000 runs"):
        matrix.variants(swept)


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("equipment.rg.model", "there is no field 'rg'; did you mean 'rig'?"),
        ("timeline.7.severity", "there is no entry '7'; they are 0 to 0"),
        ("duration.s", "there is no field 's' in duration"),
        ("duration.s.t", "there is nothing inside of it, and no 's'"),
        ("seed", "`seed` cannot be swept; write `seeds: 1..10` instead"),
        ("durasion", "durasion: there is no such field"),
    ],
)
def test_a_path_that_leads_nowhere_is_told(path: str, sentence: str):
    (finding,) = matrix.findings(scenario(sweep={path: [1]}))
    assert (finding.path[:2], finding.sentence) == (("sweep", path), sentence)
