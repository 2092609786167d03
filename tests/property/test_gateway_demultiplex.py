"""Plain samples of many streams, taken at once, end up as they would stream by stream."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from broker.clock import SteppedClock
from broker.streams import Dtype
from gateway.links.opcua.data_changes import FLOAT, NO_TIME, Changes
from gateway.links.opcua.demultiplex import Sorted, Sorter
from gateway.mapping import model
from gateway.pipeline.pipeline import Feed
from gateway.samples import Layout, Lot, Part

TEXT = """
organisation: o
equipment: e
kind: real
opcua: {{url: "opc.tcp://localhost:4840", security: none}}
streams:
  s:
    batch: {{values: 9, age_s: {age_s}}}
    signals: {{a: {{node: i=1}}, b: {{node: i=2}}, c: {{node: i=3}}}}
  t:
    signals: {{a: {{node: i=1, deadband: {deadband}}}, b: {{node: i=2}}}}
  u:
    signals: {{a: {{node: i=1}}}}
"""
SIGNALS = (3, 2, 1)
MAPPINGS = [
    model.read(TEXT.format(age_s=age_s, deadband=deadband), "m")
    for age_s, deadband in ((0, 0), (0, 1.5), (0.5, 0))
]
OVERFLOW, NOT_GOOD = 0x0480, 0x80000000
values = st.floats(-3, 3).map(lambda one: round(one, 1))


@st.composite
def publishes(draw: st.DrawFn) -> list[tuple[Layout, list[Lot]]]:
    """Layouts, each with the lots that have it: regular ones, and such as no server should send."""
    found = []
    for _ in range(draw(st.integers(1, 2))):
        chosen = draw(st.lists(st.integers(0, 2), min_size=1, unique=True))
        signal: list[int] = []
        bounds = [0]
        for stream in chosen:
            every = st.integers(0, SIGNALS[stream] - 1)
            size = draw(st.integers(1, 3))
            regular = [at for at in range(SIGNALS[stream]) for _ in range(size)]
            odd = st.lists(every, min_size=1, max_size=12)
            signal += draw(st.one_of(st.just(regular), odd))
            bounds.append(len(signal))
        layout = Layout(chosen, bounds, np.array(signal, np.int32))
        lots = []
        for at in range(draw(st.integers(1, 3))):
            low, high = draw(st.sampled_from([(0, 3), (at * 1000, at * 1000 + 999)]))
            times = draw(st.lists(st.integers(low, high), min_size=bounds[-1], max_size=bounds[-1]))
            order = draw(st.sampled_from([list, sorted]))
            shared = draw(st.booleans())
            told = [low] * len(times) if shared else order(times)
            column = draw(st.lists(values, min_size=bounds[-1], max_size=bounds[-1]))
            lots.append(Lot(layout, np.array(told, np.int64), np.array(column)))
        found.append((layout, lots))
    return found


def fed(of: model.Mapping) -> Feed:
    specs = [one.spec for one in of.streams]
    return Feed(of, specs, clock=SteppedClock(10**9), space="live", most_waiting=10**6)


@given(st.sampled_from(MAPPINGS), publishes(), st.integers(1, 2))
async def test_a_lot_becomes_the_batches_that_its_parts_would_become(
    of: model.Mapping, told: list[tuple[Layout, list[Lot]]], rounds: int
) -> None:
    whole, parted = fed(of), fed(of)
    for _ in range(rounds):
        for _, lots in told:
            for lot in lots:
                await whole.take_lot(lot)
                await parted.take(lot.parts())
    assert whole.rest() == parted.rest()
    assert whole.intake.shaped == parted.intake.shaped
    assert whole.heard_of == parted.heard_of
    for stream, signals in enumerate(SIGNALS):
        for signal in range(signals):
            assert whole.last_ns(stream, signal) == parted.last_ns(stream, signal)
    again = [Part(part.stream, part.arrivals, fresh=True) for part in told[-1][1][-1].parts()]
    await whole.take(again)  # what a new subscription tells once more is known of both
    await parted.take(again)
    assert whole.rest() == parted.rest()
    assert whole.intake.shaped == parted.intake.shaped


FEEDS = ([(0, 0)], [(1, 1)], [(0, 1), (1, 0)], [(0, 2)], [(2, 0)])
rows = st.tuples(
    st.integers(1, len(FEEDS)),
    st.integers(0, 50),
    st.floats(-9, 9),
    st.sampled_from([0] * 40 + [OVERFLOW, NOT_GOOD]),
)


def changes(rows: list[tuple[int, int, float, int]]) -> Changes:
    handle, times, column, status = zip(*rows, strict=True)
    return Changes(
        np.array(handle, np.uint32),
        np.array([time or NO_TIME for time in times], np.int64),
        np.array(status, np.uint32),
        np.full(len(rows), FLOAT, np.uint8),
        np.array([np.nan if one == 9 else one for one in column]),
        np.empty(0, np.int64),
        np.empty(0, np.object_),
    )


def said(found: Sorted) -> list[object]:
    parts = [*(found.lot.parts() if found.lot else ()), *found.first, *found.parts]
    columns = [
        [one.tolist() for one in (part.signal, part.time_ns, part.quality)]
        + [list(map(repr, part.values.tolist()))]
        for part in (one.arrivals for one in parts)
    ]
    heads = [(one.stream, one.fresh) for one in parts]
    return [heads, columns, found.holes, found.unfit, found.reasons, found.gone, found.back]


@given(
    told=st.lists(st.lists(rows, min_size=1, max_size=12), min_size=1, max_size=4),
    last=st.sampled_from([Dtype.FLOAT64, Dtype.INT64]),
    lost=st.booleans(),
)
def test_a_publish_is_sorted_alike_whether_it_is_plain_or_not(
    *, told: list[list[tuple[int, int, float, int]]], last: Dtype, lost: bool
) -> None:
    dtypes = ((Dtype.FLOAT64,) * 3, (Dtype.FLOAT64,) * 2, (last,))
    quick, general = Sorter(FEEDS, dtypes), Sorter(FEEDS, dtypes)
    for at, publish in enumerate(told * 3):  # at the second time it is known
        if lost and at == 1:
            quick.lost[:] = general.lost[:] = True
        mine, theirs = quick.sort(changes(publish), 77), general.sort_any(changes(publish), 77)
        assert said(mine) == said(theirs)
        for name in ("fresh", "lost", "gone", "heard_ns"):
            assert (getattr(quick, name)[1:] == getattr(general, name)[1:]).all()
