"""The time stamp up to which nothing is missing of a life."""

from broker.messages import Held
from broker.namespace import StreamAddress
from testbed_api.recorder.ledger import StreamEpoch
from testbed_api.recorder.life_ends import LifeEnds

LIFE = StreamEpoch("live", StreamAddress("o", "e", "s"), "one")


def test_a_life_is_complete_up_to_its_first_missing_batch() -> None:
    ends = LifeEnds()
    assert ends.settle(LIFE, Held(2), {1: 10, 2: 20}) == 20
    assert ends.settle(LIFE, Held(2, ((4, 5),)), {4: 40, 5: 50}) == 20
    assert ends.settle(LIFE, Held(5), {3: 30}) == 50


def test_a_batch_without_samples_has_no_end() -> None:
    ends = LifeEnds()
    assert ends.settle(LIFE, Held(1), {}) is None
    assert ends.settle(LIFE, Held(2), {2: 20}) == 20
    assert ends.settle(LIFE, Held(3), {}) == 20


def test_a_life_goes_on_where_the_ledger_had_it() -> None:
    ends = LifeEnds()
    ends.load(LIFE, 50)
    assert ends.settle(LIFE, Held(5, ((7, 7),)), {7: 70}) == 50
    ends.forget(LIFE)
    assert ends.settle(LIFE, Held(7), {}) is None
