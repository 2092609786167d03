"""What a run in virtual time took, and for whom it waited."""

from broker.clock import NS_PER_S
from testbed.scenario.clock_statistics import ClockStatistics


def test_time_and_the_slowest_member_are_counted_a_quantum():
    statistics = ClockStatistics()
    assert statistics.speed == 0.0
    statistics.note(NS_PER_S, NS_PER_S // 100, {"a": 0.001, "b": 0.002})
    statistics.note(NS_PER_S, NS_PER_S // 100, {"a": 0.003, "b": 0.002})
    statistics.note(NS_PER_S, NS_PER_S // 100, {"b": 0.002})
    statistics.note(NS_PER_S, NS_PER_S // 100, {})
    assert statistics.answers_s == {"a": [0.001, 0.003], "b": [0.002, 0.002, 0.002]}
    assert dict(statistics.slowest) == {"a": 1, "b": 2}
    assert statistics.speed == 100.0
    assert str(statistics) == "4 s of virtual time in 0.0 s, 100 times as fast"


def test_a_run_at_wall_time_is_not_called_virtual():
    statistics = ClockStatistics(virtual_ns=20 * NS_PER_S, wall_ns=2 * NS_PER_S, is_virtual=False)
    assert str(statistics) == "20 s of the scenario in 2.0 s of wall time"
