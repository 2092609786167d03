"""Whether a store and a ledger belong together follows from two numbers and an id."""

import pytest

from broker.errors import Refused
from testbed_api.recorder import pairing
from testbed_api.recorder.lineage import Lineage
from testbed_api.recorder.pairing import Mismatch
from testbed_api.stores.port import Position


def ledger(flushes: int, **flush: int) -> Lineage:
    return Lineage("x", flushes, {name: Position("x", each, 0) for name, each in flush.items()})


def position(flush: int, ledger_id: str = "x") -> Position:
    return Position(ledger_id, flush, 0)


@pytest.mark.parametrize(
    ("known", "stored", "mismatch"),
    [
        (ledger(0), None, None),
        (ledger(0), position(1), None),
        (ledger(7, a=5), position(5), None),
        (ledger(7, a=5), position(8), None),
        (ledger(7, a=5), position(6), None),
        (ledger(7, b=7), None, None),
        (ledger(7, a=5), None, Mismatch.STORE_LOST),
        (ledger(7, a=5), position(4), Mismatch.STORE_OLDER),
        (ledger(7, a=5), position(9), Mismatch.LEDGER_OLDER),
        (ledger(7, b=7), position(9), Mismatch.LEDGER_OLDER),
        (ledger(0), position(9, "y"), Mismatch.LEDGER_LOST),
    ],
    ids=[
        "both new",
        "killed after the first flush into the store",
        "the same flush",
        "killed after a flush into the store",
        "a flush that the ledger did not take, and then one without this organisation",
        "an organisation without samples",
        "an empty store",
        "an older store",
        "an older ledger",
        "an older ledger that does not know the organisation",
        "a new ledger",
    ],
)
def test_what_is_found(known: Lineage, stored: Position | None, mismatch: Mismatch | None) -> None:
    assert pairing.compare(known, "a", stored) is mismatch


def test_a_store_of_another_ledger_is_refused() -> None:
    with pytest.raises(Refused, match="that another ledger lists"):
        pairing.compare(ledger(7, a=5), "a", position(5, "y"))
