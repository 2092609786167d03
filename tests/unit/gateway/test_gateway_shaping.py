"""Shaping: what becomes of time stamps, dead band, gaps and size."""

import pytest

from broker import codec
from broker.batch import BAD, GOOD, MOST_BYTES, UNCERTAIN, Gap, Source
from gateway import mapping
from gateway.arrivals import Arrivals
from gateway.shaping import Shaper

HEAD = """
organisation: o
equipment: e
kind: real
opcua: {url: "opc.tcp://localhost:4840", security: none}
streams:
  s:
    signals:
"""


def shaper(*signals: str) -> Shaper:
    """signals: `name: {fields}` lines, without their node."""
    lines = "".join(f"      {one.replace('{', '{node: i=1, ')}\n" for one in signals)
    return Shaper(mapping.read(HEAD + lines, "m.yaml").streams[0], Source.LIVE)


def taken(one: Shaper, *rows: tuple[int, object, int], fresh: bool = False) -> None:
    arrivals = Arrivals.of(one.mapping.spec.dtypes, [(0, *row) for row in rows])
    assert not list(one.take(arrivals, 0, fresh=fresh))


def times_of(one: Shaper) -> list[int]:
    return [
        int(time) for batch in one.cut() for _, series in batch.series() for time in series.time_ns
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
    one = shaper("a: {}")
    taken(one, *((time, 1.0, GOOD) for time in told))
    assert times_of(one) == sorted(kept)
    assert one.shaped.moved == len([1 for was, now in zip(told, kept, strict=True) if was != now])


def test_late_data_do_not_turn_back_where_the_next_gap_begins() -> None:
    one = shaper("a: {}")
    taken(one, (100, 1.0, GOOD), (50, 2.0, GOOD))
    assert one.last_ns(0) == 100


def test_what_the_server_repeats_at_a_new_subscription_is_no_sample() -> None:
    one = shaper("a: {}")
    taken(one, (10, 1.0, GOOD), (10, 2.0, GOOD))
    taken(one, (10, 2.0, GOOD), fresh=True)
    assert times_of(one) == [10, 11]
    assert one.shaped.repeated == 1


def test_a_change_of_quality_leaves_the_dead_band() -> None:
    one = shaper("a: {deadband: 1}")
    taken(
        one,
        (1, 5.0, GOOD),
        (2, 5.5, GOOD),
        (3, 5.5, UNCERTAIN),
        (4, float("nan"), BAD),
        (5, 5.5, GOOD),
    )
    assert times_of(one) == [1, 3, 4, 5]
    assert one.shaped.dead_banded == 1


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
        batches += one.take(Arrivals.of(one.mapping.spec.dtypes, rows), 0)
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
