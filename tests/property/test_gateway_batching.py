"""Shaping loses nothing, keeps times, and gives no two samples of a signal one time."""

from hypothesis import given
from hypothesis import strategies as st

from broker.batch import GOOD, Source
from gateway.mapping import model
from gateway.pipeline.batching import Shaper
from gateway.pipeline.sample_filter import Intake
from gateway.samples import Arrivals, Part

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
MAPPING = model.read(TEXT, "m").streams[0]

rows = st.tuples(st.integers(0, 2), st.integers(0, 40), st.floats(-1e9, 1e9))


@given(st.lists(st.lists(rows, min_size=1, max_size=20), max_size=10))
def test_every_sample_comes_out_once_at_its_time_or_just_after(
    told: list[list[tuple[int, int, float]]],
) -> None:
    intake, shaper = Intake([MAPPING]), Shaper(MAPPING, Source.LIVE)
    batches = []
    for publish in told:
        rows = [(*row, GOOD) for row in publish]
        for part in intake.take([Part(0, Arrivals.of(MAPPING.spec.dtypes, rows))]):
            batches += shaper.keep(part.arrivals, 0)
    batches += shaper.cut()
    for at, name in enumerate(MAPPING.spec.names):
        out = [
            pair
            for one in batches
            for pair in zip(one[name].time_ns.tolist(), one[name].values.tolist(), strict=True)
        ]
        put = [(time, value) for publish in told for signal, time, value in publish if signal == at]
        assert len({time for time, _ in out}) == len(out)
        assert sorted(value for _, value in out) == sorted(value for _, value in put)
        assert sum(time for time, _ in out) >= sum(time for time, _ in put)
        if len({time for time, _ in put}) == len(put):
            assert sorted(out) == sorted(put)
