"""Laws of draws: a seed decides them, and they lie inside their span, one after the other."""

from hypothesis import given
from hypothesis import strategies as st

from broker import time_expressions
from testbed_scenarios import timeline
from testbed_scenarios.model import Scenario

text = time_expressions.duration_text
microseconds = st.integers(min_value=1, max_value=10**10).map(lambda count: count * 1_000)


@st.composite
def drawn_scenarios(draw: st.DrawFn) -> Scenario:
    duration_ns = draw(microseconds)
    from_ns = draw(st.integers(0, duration_ns // 1_000 - 1)) * 1_000
    to_ns = draw(st.integers(from_ns // 1_000 + 1, duration_ns // 1_000)) * 1_000
    every_ns = max(1_000, (to_ns - from_ns) // draw(st.integers(1, 40)) // 1_000 * 1_000)
    high_ns = draw(st.integers(1, every_ns // 1_000)) * 1_000
    low_ns = draw(st.integers(1, high_ns // 1_000)) * 1_000
    entry = {
        "draw": draw(st.lists(st.sampled_from(["valve", "bearing"]), min_size=1, max_size=3)),
        "on": "rig",
        "every": text(every_ns),
        "lasting": f"{text(low_ns)}..{text(high_ns)}",
        "from": text(from_ns),
        "to": text(to_ns),
    }
    return Scenario.from_document(
        {
            "scenario": "a",
            "duration": text(duration_ns),
            "equipment": {"rig": {"model": "pump-rig"}},
            "timeline": [entry],
        }
    )


@given(drawn_scenarios(), st.integers(0, 2**53 - 1))
def test_draws_follow_one_another_inside_their_span_and_a_seed_decides_them(scenario, seed):
    (draw,) = scenario.timeline
    plan = timeline.planned(scenario, seed)
    assert plan == timeline.planned(scenario, seed)
    assert len(plan) == (draw.to_ns - draw.from_ns) // draw.every_ns
    end_ns = draw.from_ns
    for fault in plan:
        assert end_ns <= fault.from_ns < fault.to_ns <= draw.to_ns
        assert draw.lasting.low_ns <= fault.to_ns - fault.from_ns <= draw.lasting.high_ns
        end_ns = fault.to_ns


@given(st.integers(0, time_expressions.MOST_DURATION_NS // 1_000))
def test_a_duration_is_read_as_it_was_written(count):
    assert time_expressions.nanoseconds(text(count * 1_000)) == count * 1_000
