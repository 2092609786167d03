"""Filter and batching lose nothing, keep times, and give no two samples of a signal one time."""

from hypothesis import given
from hypothesis import strategies as st

from broker.batch import GOOD, Source
from gateway.mapping import file as mapping_file
from gateway.pipeline.batching import Batcher
from gateway.pipeline.sample_filter import SampleFilter
from gateway.pipeline.source_clock import StampLimits
from gateway.pipeline.stream_group import EarlierStamps
from gateway.samples import Arrival, Samples, StreamSamples
from gateway.spool.stamps import StreamStamps

TEXT = """
organisation: o
equipment: e
kind: real
opcua: {url: "opc.tcp://localhost:4840", security: none}
streams:
  s:
    batch: {values: 7}
    signals: {a: {node: i=1}, b: {node: i=2}, c: {node: i=3}}
"""
MAPPING = mapping_file.read(TEXT, "m").streams[0]
NOW = Arrival(0, 0)

rows = st.tuples(st.integers(0, 2), st.integers(0, 40), st.floats(-1e9, 1e9))


@given(st.lists(st.lists(rows, min_size=1, max_size=20), max_size=10))
def test_every_sample_comes_out_once_at_its_time_or_just_after(
    sent: list[list[tuple[int, int, float]]],
) -> None:
    earlier = EarlierStamps(stamps=[StreamStamps()], began=NOW)
    filter_ = SampleFilter([MAPPING], StampLimits(2**62, 2**62, 10), earlier)
    batcher = Batcher(MAPPING, Source.LIVE)
    batches = []
    for publish in sent:
        rows = [(*row, GOOD) for row in publish]
        samples = Samples.from_rows(MAPPING.spec.dtypes, rows)
        for part in filter_.take([StreamSamples(0, samples)], NOW):
            batches += batcher.add(part.samples, 0, part.may_repeat)
    batches += batcher.cut()
    for at, name in enumerate(MAPPING.spec.names):
        out = [
            pair
            for batch in batches
            for pair in zip(batch[name].time_ns.tolist(), batch[name].values.tolist(), strict=True)
        ]
        put = [(time, value) for publish in sent for signal, time, value in publish if signal == at]
        vouched = [
            time
            for batch in batches
            if batch.may_repeat is None
            for time in batch[name].time_ns.tolist()
        ]
        assert len(set(vouched)) == len(vouched)
        assert sorted(value for _, value in out) == sorted(value for _, value in put)
        assert sum(time for time, _ in out) >= sum(time for time, _ in put)
        if len({time for time, _ in put}) == len(put):
            assert sorted(out) == sorted(put)
