"""The plan of a run: draws that a seed resolves, beside the faults and events of the file."""

from testbed_scenarios import timeline
from testbed_scenarios.model import Scenario
from testbed_scenarios.quantities import PhysicalValue
from testbed_scenarios.timeline_model import LinkFault, ModelFault, SignalFault

FIELDS = {
    "scenario": "a",
    "duration": "10min",
    "equipment": {"rig": {"model": "pump-rig"}},
}


def scenario(*entries: dict[str, object]) -> Scenario:
    return Scenario.from_document({**FIELDS, "timeline": list(entries)})


def test_entries_are_planned_in_the_order_of_their_beginning():
    plan = timeline.planned(
        scenario(
            {"set": "rig/opening", "at": "90s", "value": 1},
            {"fault": "valve", "on": "rig", "from": "60s", "to": "120s"},
            {"fault": "server-restart", "at": "30s"},
        ),
        seed=1,
    )
    assert [timeline.begin_ns(entry) // 10**9 for entry in plan] == [30, 60, 90]


def test_a_draw_has_one_fault_in_each_of_its_parts():
    draw = {
        "draw": ["valve", "bearing"],
        "on": "rig",
        "every": "2min",
        "lasting": "20s..60s",
        "from": "1min",
        "severity": 0.5,
    }
    plan = timeline.planned(scenario(draw), seed=1)
    assert [(fault.from_ns // 10**9 - 60) // 120 for fault in plan] == [0, 1, 2, 3]
    assert all(isinstance(fault, ModelFault) and fault.severity == 0.5 for fault in plan)
    assert {fault.fault for fault in plan} <= {"valve", "bearing"}
    assert all(time_ns % 10**6 == 0 for fault in plan for time_ns in (fault.from_ns, fault.to_ns))


def test_a_draw_on_a_signal_has_faults_of_the_sensor_with_their_options():
    draw = {
        "draw": ["spike", "stuck"],
        "on": "rig/Pressure",
        "every": "10s",
        "lasting": "1s..5s",
        "by": "2 bar",
    }
    plan = timeline.planned(scenario(draw), seed=3)
    assert all(isinstance(fault, SignalFault) and fault.on == "rig/Pressure" for fault in plan)
    assert {(str(fault.fault), fault.by) for fault in plan} == {
        ("spike", PhysicalValue(2.0, "bar")),
        ("stuck", None),
    }


def test_a_cut_of_the_link_can_be_drawn():
    draw = {"draw": ["cut"], "on": "rig", "every": "5min", "lasting": "1s"}
    first, second = timeline.planned(scenario(draw), seed=3)
    assert isinstance(first, LinkFault)
    assert first.to_ns - first.from_ns == second.to_ns - second.from_ns == 10**9


def test_an_entry_at_the_end_changes_no_draw_before_it():
    draw = {"draw": ["valve"], "on": "rig", "every": "1min", "lasting": "5s..20s"}
    later = {"draw": ["bearing"], "on": "rig", "every": "1min", "lasting": "5s..20s"}
    alone = timeline.planned(scenario(draw), seed=5)
    both = timeline.planned(scenario(draw, later), seed=5)
    assert alone == tuple(fault for fault in both if fault.fault == "valve")


def test_the_faults_of_a_seed_are_the_same_on_every_machine():
    draw = {"draw": ["valve", "bearing"], "on": "rig", "every": "5min", "lasting": "20s..60s"}
    plan = timeline.planned(scenario(draw), seed=7)
    assert [(fault.fault, fault.from_ns, fault.to_ns) for fault in plan] == [
        ("bearing", 174_463_000_000, 219_467_000_000),
        ("bearing", 499_249_000_000, 542_381_000_000),
    ]
