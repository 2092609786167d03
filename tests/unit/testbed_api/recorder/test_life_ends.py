"""The time stamp up to which nothing is missing of a life."""

from collections.abc import Mapping

from broker.messages import Held
from broker.namespace import StreamAddress
from testbed_api.recorder.ledger import StreamEpoch
from testbed_api.recorder.life_ends import LifeEnds

LIFE = StreamEpoch("live", StreamAddress("o", "e", "s"), "one")


def stored(ends: LifeEnds, held: Held, stamps_ns: Mapping[int, int]) -> int | None:
    """The end of the life once these batches are in the ledger."""
    after = ends.after({LIFE: held}, {LIFE: stamps_ns})
    ends.apply(after)
    return after[LIFE].until_ns


def test_a_life_is_complete_up_to_its_first_missing_batch() -> None:
    ends = LifeEnds()
    assert stored(ends, Held(2), {1: 10, 2: 20}) == 20
    assert stored(ends, Held(2, ((4, 5),)), {4: 40, 5: 50}) == 20
    assert stored(ends, Held(5), {3: 30}) == 50


def test_a_batch_without_samples_has_no_end() -> None:
    ends = LifeEnds()
    assert stored(ends, Held(1), {}) is None
    assert stored(ends, Held(2), {2: 20}) == 20
    assert stored(ends, Held(3), {}) == 20


def test_a_life_goes_on_where_the_ledger_had_it() -> None:
    ends = LifeEnds()
    ends.load(LIFE, 50)
    assert stored(ends, Held(5, ((7, 7),)), {7: 70}) == 50
    ends.forget(LIFE)
    assert stored(ends, Held(7), {}) is None


def test_a_batch_that_the_ledger_did_not_take_ends_nothing() -> None:
    ends = LifeEnds()
    assert stored(ends, Held(1), {1: 10}) == 10
    ends.after({LIFE: Held(2)}, {LIFE: {2: 20}})  # it was not committed, and is given up
    assert stored(ends, Held(1, ((3, 3),)), {3: 30}) == 10
