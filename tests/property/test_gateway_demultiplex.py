"""Plain samples of many streams, taken at once, end up as they would stream by stream."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from broker.clock import SteppedClock
from broker.streams import Dtype
from gateway.links.opcua.data_changes import FLOAT, NO_TIME, DataChanges
from gateway.links.opcua.demultiplex import Demultiplexer
from gateway.links.opcua.demultiplexed import Demultiplexed
from gateway.links.opcua.general_path import GeneralPath
from gateway.mapping import file as mapping_file
from gateway.mapping.model import Mapping
from gateway.pipeline.pipeline import Pipeline
from gateway.samples import Layout, Lot, StreamSamples

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
    mapping_file.read(TEXT.format(age_s=age_s, deadband=deadband), "m")
    for age_s, deadband in ((0, 0), (0, 1.5), (0.5, 0))
]
OVERFLOW, NOT_GOOD = 0x0480, 0x80000000
values = st.floats(-3, 3).map(lambda number: round(number, 1))


@st.composite
def publishes(draw: st.DrawFn) -> list[tuple[Layout, list[Lot]]]:
    """Layouts, each with the lots that have it: regular ones, and such as no server should send."""
    layouts = []
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
            stamps = [low] * len(times) if shared else order(times)
            column = draw(st.lists(values, min_size=bounds[-1], max_size=bounds[-1]))
            lots.append(Lot(layout, np.array(stamps, np.int64), np.array(column)))
        layouts.append((layout, lots))
    return layouts


def fed(of: Mapping) -> Pipeline:
    specs = [stream.spec for stream in of.streams]
    return Pipeline(of, specs, clock=SteppedClock(10**9), space="live", most_waiting=10**6)


@given(st.sampled_from(MAPPINGS), publishes(), st.integers(1, 2))
async def test_a_lot_becomes_the_batches_that_its_parts_would_become(
    of: Mapping, sent: list[tuple[Layout, list[Lot]]], rounds: int
) -> None:
    whole, parted = fed(of), fed(of)
    for _ in range(rounds):
        for _, lots in sent:
            for lot in lots:
                await whole.take_lot(lot)
                await parted.take(lot.parts())
    assert whole.remaining() == parted.remaining()
    assert whole.sample_filter.counts == parted.sample_filter.counts
    assert whole.activity == parted.activity
    for stream, signals in enumerate(SIGNALS):
        for signal in range(signals):
            lasts = [each.sample_filter.last(stream, signal) for each in (whole, parted)]
            assert lasts[0] == lasts[1]
    again = [
        StreamSamples(part.stream, part.samples, fresh=True) for part in sent[-1][1][-1].parts()
    ]
    await whole.take(again)  # a new subscription repeats the last samples: both know them
    await parted.take(again)
    assert whole.remaining() == parted.remaining()
    assert whole.sample_filter.counts == parted.sample_filter.counts


FEEDS = ([(0, 0)], [(1, 1)], [(0, 1), (1, 0)], [(0, 2)], [(2, 0)])
rows = st.tuples(
    st.integers(1, len(FEEDS)),
    st.integers(0, 50),
    st.floats(-9, 9),
    st.sampled_from([0] * 40 + [OVERFLOW, NOT_GOOD]),
)


def changes(rows: list[tuple[int, int, float, int]]) -> DataChanges:
    handle, times, column, status = zip(*rows, strict=True)
    return DataChanges(
        handle=np.array(handle, np.uint32),
        time_ns=np.array([time or NO_TIME for time in times], np.int64),
        status=np.array(status, np.uint32),
        kind=np.full(len(rows), FLOAT, np.uint8),
        floats=np.array([np.nan if number == 9 else number for number in column]),
        ints=np.empty(0, np.int64),
        others=np.empty(0, np.object_),
    )


def listed(result: Demultiplexed) -> list[object]:
    parts = [*(result.lot.parts() if result.lot else ()), *result.first, *result.parts]
    columns = [
        [column.tolist() for column in (samples.signal, samples.time_ns, samples.quality)]
        + [list(map(repr, samples.values.tolist()))]
        for samples in (part.samples for part in parts)
    ]
    heads = [(part.stream, part.fresh) for part in parts]
    rest = (result.gaps, result.unfit, result.reasons, result.gone, result.back)
    return [heads, columns, *rest]


@given(
    sent=st.lists(st.lists(rows, min_size=1, max_size=12), min_size=1, max_size=4),
    last=st.sampled_from([Dtype.FLOAT64, Dtype.INT64]),
    lost=st.booleans(),
)
def test_a_publish_is_sorted_alike_whether_it_is_plain_or_not(
    *, sent: list[list[tuple[int, int, float, int]]], last: Dtype, lost: bool
) -> None:
    dtypes = ((Dtype.FLOAT64,) * 3, (Dtype.FLOAT64,) * 2, (last,))
    quick, general = Demultiplexer(FEEDS, dtypes), Demultiplexer(FEEDS, dtypes)
    general_path = GeneralPath(general.items)
    for at, publish in enumerate(sent * 3):  # at the second time it is known
        if lost and at == 1:
            quick.items.lost[:] = general.items.lost[:] = True
        result = quick.demultiplex(changes(publish), 77)
        expected = general_path.demultiplex(changes(publish), 77)
        assert listed(result) == listed(expected)
        for name in ("fresh", "lost", "gone"):
            assert (getattr(quick.items, name)[1:] == getattr(general.items, name)[1:]).all()
