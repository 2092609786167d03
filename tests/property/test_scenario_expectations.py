"""Laws of expectations: equal to a plain oracle, and a function of the data and of nothing else."""

import math
from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from broker.batch import BAD, GOOD, UNCERTAIN, Batch, Gap, Series, Source, Wide
from broker.namespace import StreamAddress
from broker.streams import Signal, StreamSpec
from testbed_scenarios import observations, verdict
from testbed_scenarios.expectations.evaluate import evaluate
from testbed_scenarios.expectations.model import Expectation
from testbed_scenarios.observations import Observations, TruthInterval

TICK_NS = 1_000_000
END = 24
"""Ticks in a run."""
EXPECTATION = TypeAdapter(Expectation)
LAWS = settings(max_examples=60, deadline=None)

samples = st.tuples(
    st.integers(0, END - 1),
    st.integers(-3, 3).map(float),
    st.sampled_from([GOOD, GOOD, GOOD, UNCERTAIN, BAD]),
)
some_samples = st.lists(samples, max_size=14)
gaps = st.lists(st.integers(0, END - 1), max_size=2)
conditions = st.one_of(
    st.integers(-2, 2).map(lambda bound: {"below": bound}),
    st.integers(-2, 2).map(lambda bound: {"at_least": bound}),
    st.integers(-2, 2).map(lambda bound: {"is": bound}),
    st.tuples(st.integers(-2, 0), st.integers(0, 2)).map(lambda pair: {"between": pair}),
)
spans = st.tuples(st.integers(0, END - 1), st.integers(1, END)).map(
    lambda pair: (pair[0], min(pair[0] + pair[1], END))
)


def observed(rows, gap_ticks=(), truth=None):
    return Observations(
        start_ns=0,
        end_ns=END * TICK_NS,
        streams={"rig": {"P": column(rows)}},
        signals={"rig": {"P": Signal("P", unit="bar")}},
        gaps={"rig": tuple(Gap((), tick * TICK_NS, tick * TICK_NS, "cut") for tick in gap_ticks)},
        truth={} if truth is None else {"rig": truth},
    )


def column(rows):
    ticks, values, quality = zip(*rows, strict=True) if rows else ((), (), ())
    pairs = zip(values, quality, strict=True)
    values = [math.nan if bad == BAD else value for value, bad in pairs]
    return Series(
        np.array(ticks, np.int64) * TICK_NS,
        np.array(values, np.float64),
        np.array(quality, np.uint8),
    )


def ms(ticks):
    return f"{ticks}ms"


def parsed(**fields):
    return EXPECTATION.validate_python({"signal": "rig/P", **fields})


def holds(condition, value):
    ((word, bound),) = condition.items()
    match word:
        case "below":
            return value < bound
        case "at_least":
            return value >= bound
        case "is":
            return value == bound
    return bound[0] <= value <= bound[1]


def margin(condition, value):
    ((word, bound),) = condition.items()
    match word:
        case "below":
            return bound - value
        case "at_least":
            return value - bound
        case "is":
            return -abs(value - bound)
    return min(value - bound[0], bound[1] - value)


def values_in(rows, gap_ticks, begin, end):
    """The oracle: the value that is held into a span, and every sample with a value in it."""
    inside = [value for tick, value, quality in rows if begin <= tick < end and quality != BAD]
    earlier = [row for row in rows if row[0] < begin]
    if not earlier or any(row[0] == begin for row in rows):
        return inside
    last = max(tick for tick, *_ in earlier)
    if any(last <= tick <= begin for tick in gap_ticks):
        return inside
    usable = [row for row in earlier if row[0] == last and row[2] != BAD]
    if not usable:
        return inside
    best = min(quality for *_, quality in usable)
    return [*inside, max(value for _, value, quality in usable if quality == best)]


@LAWS
@given(some_samples, gaps, conditions, spans)
def test_always_and_never_are_about_every_value_of_the_span(rows, gap_ticks, condition, span):
    begin, end = span
    values = values_in(rows, gap_ticks, begin, end)
    fields = {"from": ms(begin), "to": ms(end)}
    always = evaluate(parsed(always=condition, **fields), observed(rows, gap_ticks))
    never = evaluate(parsed(never=condition, **fields), observed(rows, gap_ticks))
    assert always.passed == (bool(values) and all(holds(condition, each) for each in values))
    assert never.passed == (bool(values) and not any(holds(condition, each) for each in values))
    margins = [margin(condition, each) for each in values]
    assert always.robustness == (min(margins) if values else None)
    assert never.robustness == (min(-each for each in margins) if values else None)


@LAWS
@given(some_samples, gaps, conditions, spans)
def test_eventually_is_about_some_value_of_the_span(rows, gap_ticks, condition, span):
    begin, end = span
    values = values_in(rows, gap_ticks, begin, end)
    result = evaluate(
        parsed(eventually=condition, **{"from": ms(begin), "to": ms(end)}),
        observed(rows, gap_ticks),
    )
    assert result.passed == any(holds(condition, each) for each in values)
    assert result.robustness == max((margin(condition, each) for each in values), default=None)


@LAWS
@given(some_samples, conditions, st.integers(1, 10), st.lists(st.integers(0, END - 1), max_size=3))
def test_within_includes_its_end_after_each_occurrence(rows, condition, within, begins):
    truth = tuple(TruthInterval("valve", at * TICK_NS, END * TICK_NS) for at in begins)
    result = evaluate(
        parsed(eventually=condition, within=ms(within), after={"fault": "valve"}),
        observed(rows, (), truth),
    )
    answers = []
    for begin in begins:
        values = values_in(rows, (), begin, begin + within + 1)
        fulfilled = any(holds(condition, each) for each in values)
        is_cut = begin + within > END
        answers.append(None if is_cut and not fulfilled else fulfilled)
    assert result.passed == (False not in answers and True in answers)


@LAWS
@given(some_samples, gaps, st.integers(-2, 2), st.integers(0, 2), spans)
def test_settled_is_in_the_band_from_then_on(rows, gap_ticks, middle, half, span):
    begin, within = span[0], span[1] - span[0]
    band = half + 0.5
    result = evaluate(
        parsed(settles={"to": middle, "band": band, "within": ms(within)}, **{"from": ms(begin)}),
        observed(rows, gap_ticks),
    )
    is_over = begin + within == END
    values = [] if is_over else values_in(rows, gap_ticks, begin + within, END)
    inside = [abs(each - middle) <= band for each in values]
    assert result.passed == (bool(values) and all(inside))


@LAWS
@given(some_samples, spans, st.integers(1, END), st.integers(0, 6))
def test_counts_and_rates_are_those_of_every_window(rows, span, over, bound):
    begin, end = span
    stamps = [tick * TICK_NS for tick, _, quality in rows if quality != BAD]
    fields = {"from": ms(begin), "to": ms(end)}
    count = evaluate(parsed(count={"at_least": bound}, **fields), observed(rows))
    inside = [stamp for stamp in stamps if begin * TICK_NS <= stamp < end * TICK_NS]
    assert count.observed["count"] == len(inside)
    assert count.passed == (len(inside) >= bound)
    over = min(over, end - begin)
    starts = [
        tick * TICK_NS + ns
        for tick in range(begin, end)
        for ns in (0, 1)
        if tick * TICK_NS + ns + over * TICK_NS <= end * TICK_NS
    ]
    counts = [sum(start <= each < start + over * TICK_NS for each in stamps) for start in starts]
    for word, extreme in (("at_least", min(counts)), ("at_most", max(counts))):
        limit = 1000 * bound / over
        rate = evaluate(parsed(rate={word: limit}, over=ms(over), **fields), observed(rows))
        assert math.isclose(rate.observed["rate_per_s"], 1000 * extreme / over)
        enough = extreme >= bound if word == "at_least" else extreme <= bound
        assert rate.passed == enough or math.isclose(rate.robustness, 0, abs_tol=1e-9)


@LAWS
@given(
    st.lists(st.booleans(), min_size=END, max_size=END),
    st.lists(spans, max_size=3),
)
def test_scores_are_those_of_rows_and_of_whole_faults_and_alarms(flags, faults):
    truth = tuple(TruthInterval("valve", a * TICK_NS, b * TICK_NS) for a, b in faults)
    rig = observed([(tick, 0.0, GOOD) for tick in range(END)], (), truth)
    alarms = Series(np.arange(END) * TICK_NS, np.array(flags, np.bool_), np.zeros(END, np.uint8))
    run = replace(rig, streams={**rig.streams, "d/s": {"a": alarms}})
    faulty = [any(a <= tick < b for a, b in faults) for tick in range(END)]
    pairs = list(zip(faulty, flags, strict=True))
    hits, both = pairs.count((True, True)), sum(faulty) + sum(flags)
    by_point = score(run, "point")
    assert by_point["precision"] == ratio(hits, sum(flags))
    assert by_point["recall"] == ratio(hits, sum(faulty))
    assert by_point["f1"] == (ratio(2 * hits, both) if any(faulty) else None)
    raised, events = runs(flags), runs(faulty)
    detected = [event for event in events if any(flags[tick] for tick in event)]
    false = [alarm for alarm in raised if not any(faulty[tick] for tick in alarm)]
    by_event = score(run, "event")
    assert by_event["precision"] == ratio(len(detected), len(detected) + len(false))
    assert by_event["recall"] == ratio(len(detected), len(events))
    delays = [next(tick for tick in event if flags[tick]) - event[0] for event in detected]
    assert by_event["delay_s"] == by_point["delay_s"]
    assert by_event["delay_s"] == (max(delays) / 1000 if delays else None)


def score(run, by):
    names = ("precision", "recall", "f1")
    fields = {name: {"at_least": 0} for name in names} | {"delay": {"at_least": "0s"}}
    expectation = {"detection": "d/s/a", "truth": "rig", "by": by, **fields}
    return evaluate(EXPECTATION.validate_python(expectation), run).observed


def ratio(part, whole):
    return part / whole if whole else None


def runs(flags):
    """The maximal runs of true flags, as lists of ticks."""
    ticks = [tick for tick, flag in enumerate(flags) if flag]
    groups = []
    for tick in ticks:
        if groups and groups[-1][-1] == tick - 1:
            groups[-1].append(tick)
        else:
            groups.append([tick])
    return groups


SPEC = StreamSpec(StreamAddress.parse("local/rig/measured"), (Signal("P", unit="bar"),))
ALL = [
    parsed(always={"below": 2}),
    parsed(never={"above": 1}, unknown="fails"),
    parsed(eventually={"at_least": 2}),
    parsed(settles={"to": 0, "band": 1, "within": "9ms"}),
    parsed(count={"at_least": 5}),
    parsed(rate={"at_most": "900 /s"}, over="5ms"),
    *(
        EXPECTATION.validate_python(fields)
        for fields in (
            {"control": "rig/P", "set_point": 2, "overshoot": {"at_most": "50 %"}},
            {"control": "rig/P", "cycle_time": {"at_most": "5ms"}},
            {"detection": "rig/P", "truth": "rig", "f1": {"at_least": 0.5}},
        )
    ),
]


def batch_of(rows):
    series = column(rows)
    frame = Wide(series.time_ns, {"P": series.values}, {"P": series.quality})
    return Batch(1, (frame,), Source.SIMULATED)


@LAWS
@given(some_samples, gaps, st.randoms(use_true_random=False), st.integers(1, 4))
def test_a_verdict_depends_on_the_data_and_not_on_order_or_batches(rows, gap_ticks, random, cut):
    truth = (TruthInterval("valve", 5 * TICK_NS, 9 * TICK_NS),)
    whole = verdict.judge(ALL, observed(rows, gap_ticks, truth))
    shuffled = random.sample(rows, len(rows))
    batches = [batch_of(shuffled[at : at + cut]) for at in range(0, len(rows), cut)]
    again = replace(
        observed([], gap_ticks, truth), streams={"rig": observations.joined(batches, SPEC)}
    )
    assert verdict.judge(ALL, again) == whole


@LAWS
@given(some_samples, gaps, conditions, st.sampled_from(["always", "never", "eventually"]))
def test_robustness_says_how_much_every_value_may_change(rows, gap_ticks, condition, word):
    expectation = parsed(**{word: condition})
    result = evaluate(expectation, observed(rows, gap_ticks))
    if not result.robustness:
        return
    assert result.passed == (result.robustness > 0)
    for share in (-0.99, 0.99):
        moved = [(tick, value + share * result.robustness, bad) for tick, value, bad in rows]
        assert evaluate(expectation, observed(moved, gap_ticks)).passed == result.passed
