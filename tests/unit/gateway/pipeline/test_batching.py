"""Shaping: what becomes of time stamps, dead band, gaps and size."""

import pytest

from broker import codec
from broker.batch import BAD, GOOD, MOST_BYTES, UNCERTAIN, Gap, Source
from broker.streams import Dtype
from gateway.mapping import model
from gateway.mapping.model import StreamMapping
from gateway.pipeline.batching import Shaper
from gateway.pipeline.sample_filter import Intake
from gateway.samples import Arrivals, Part

HEAD = """
organisation: o
equipment: e
kind: real
opcua: {url: "opc.tcp://localhost:4840", security: none}
streams:
  s:
    signals:
"""


def stream(*signals: str) -> StreamMapping:
    """signals: `name: {fields}` lines, without their node."""
    lines = "".join(f"      {one.replace('{', '{node: i=1, ')}\n" for one in signals)
    return model.read(HEAD + lines, "m.yaml").streams[0]


def shaper(*signals: str) -> Shaper:
    return Shaper(stream(*signals), Source.LIVE)


def taken(one: Intake, *rows: tuple[int, object, int], fresh: bool = False) -> list[int]:
    """The time stamps of what counts."""
    arrivals = Arrivals.of([Dtype.FLOAT64], [(0, *row) for row in rows])
    return [
        time
        for _, found, _ in one.take([Part(0, arrivals, fresh)])
        for time in found.time_ns.tolist()
    ]


@pytest.mark.parametrize(
    ("told", "kept"),
    [
        ([10, 10, 10, 10], [10, 11, 12, 13]),
        ([10, 20, 10], [10, 20, 11]),
        ([10, 11, 10, 11], [10, 11, 12, 13]),
        ([10] * 1000, list(range(10, 1010))),
    ],
)
def test_of_samples_at_one_time_the_later_ones_move_to_a_free_one(
    told: list[int], kept: list[int]
) -> None:
    one = Intake([stream("a: {}")])
    assert taken(one, *((time, 1.0, GOOD) for time in told)) == kept
    assert one.shaped[0].moved == len(
        [1 for was, now in zip(told, kept, strict=True) if was != now]
    )


def test_late_data_do_not_turn_back_where_the_next_gap_begins() -> None:
    one = Intake([stream("a: {}")])
    taken(one, (100, 1.0, GOOD), (50, 2.0, GOOD))
    assert one.last_ns(0, 0) == 100


def test_what_the_server_repeats_at_a_new_subscription_is_no_sample() -> None:
    one = Intake([stream("a: {}")])
    assert taken(one, (10, 1.0, GOOD), (10, 2.0, GOOD)) == [10, 11]
    assert taken(one, (10, 2.0, GOOD), fresh=True) == []
    assert taken(one, (10, 2.0, GOOD), (20, 2.0, GOOD), fresh=True) == [20]
    assert one.shaped[0].repeated == 2


def test_a_change_of_quality_leaves_the_dead_band() -> None:
    one = Intake([stream("a: {deadband: 1}")])
    counted = taken(
        one,
        (1, 5.0, GOOD),
        (2, 5.5, GOOD),
        (3, 5.5, UNCERTAIN),
        (4, float("nan"), BAD),
        (5, 5.5, GOOD),
    )
    assert counted == [1, 3, 4, 5]
    assert one.shaped[0].dead_banded == 1


def test_streams_that_come_together_do_not_mix() -> None:
    """Two of floats, one of both kinds, and one that has nothing this time."""
    kinds = (["a: {deadband: 1}"], ["a: {}", "b: {dtype: string}"], ["a: {}"], ["a: {}"])
    streams = [stream(*one) for one in kinds]
    one = Intake(streams)
    rows = [[(0, 5, 1.0, GOOD), (0, 6, 1.5, GOOD)], [(1, 5, "x", GOOD), (0, 5, 2.0, GOOD)]]
    parts = [
        Part(at, Arrivals.of(streams[at].spec.dtypes, row))
        for at, row in ((0, rows[0]), (1, rows[1]), (2, [(0, 5, 3.0, GOOD), (0, 5, 4.0, GOOD)]))
    ]
    counted = {at: found for at, found, _ in one.take(parts)}
    assert {at: found.time_ns.tolist() for at, found in counted.items()} == {
        0: [5],
        1: [5, 5],
        2: [5, 6],
    }
    assert counted[1].signal.tolist() == [1, 0]
    assert counted[1].values.tolist() == ["x", 2.0]
    assert counted[2].values.tolist() == [3.0, 4.0]
    assert [(shaped.offered, shaped.dead_banded, shaped.moved) for shaped in one.shaped] == [
        (2, 1, 0),
        (2, 0, 0),
        (2, 0, 1),
        (0, 0, 0),
    ]
    assert [one.last_ns(at, 0) for at in range(4)] == [6, 5, 6, None]


def test_signals_with_the_same_hole_share_one_gap() -> None:
    one = shaper("a: {}", "b: {}", "c: {}")
    for name in ("a", "b"):
        one.gap(Gap((name,), 1, 9, "server-overflow"))
    one.gap(Gap(("c",), 1, 8, "server-overflow"))
    (batch,) = one.cut()
    assert batch.gaps == (
        Gap(("a", "b"), 1, 9, "server-overflow"),
        Gap(("c",), 1, 8, "server-overflow"),
    )


def test_no_batch_is_larger_than_the_wire_allows() -> None:
    one = shaper("a: {dtype: string}", "b: {dtype: string}")
    batches = []
    for time in range(60):
        texts = ("\x01" * 16_000, "x" * 16_000)
        rows = [(at, time * 100, text, GOOD) for at, text in enumerate(texts)]
        batches += one.keep(Arrivals.of(one.mapping.spec.dtypes, rows), 0)
    batches += one.cut()
    assert sum(len(batch) for batch in batches) == 120
    assert all(len(codec.encode(batch)) <= MOST_BYTES for batch in batches)


def test_many_gaps_become_several_batches() -> None:
    one = shaper("a: {}", "b: {}")
    for at in range(5_000):
        one.gap(Gap(("a",), at, at + 1, "server-overflow"))
    batches = list(one.cut())
    assert sum(len(batch.gaps) for batch in batches) == 5_000
    assert all(len(codec.encode(batch)) <= MOST_BYTES for batch in batches)
    assert not one.waits
