"""How late marks come: of the newest that came, or of what has been missing for longer."""

from broker.clock import NS_PER_S
from broker.messages import Held
from gateway.spool.lives import StreamLife
from gateway.spool.rows import SpooledBatch
from gateway.uplink.mark_lag import MarkLag

S = StreamLife("s", "one")


def sent(lag: MarkLag, *seconds: int) -> None:
    for at in seconds:
        lag.sent(SpooledBatch(at, "s", "one", at, b""), at * NS_PER_S)


def test_the_lag_is_that_of_the_newest_batch_that_was_marked() -> None:
    lag = MarkLag()
    sent(lag, 1, 2, 3)
    lag.marked({S: Held(2)}, 12 * NS_PER_S)
    assert lag.at(12 * NS_PER_S) == 10 * NS_PER_S
    lag.marked({S: Held(3)}, 13 * NS_PER_S)
    assert lag.at(500 * NS_PER_S) == 10 * NS_PER_S


def test_what_is_missing_for_longer_is_the_lag() -> None:
    lag = MarkLag()
    sent(lag, 1)
    assert lag.at(40 * NS_PER_S) == 39 * NS_PER_S


def test_a_batch_that_is_lost_is_no_sign_once_a_later_one_is_marked() -> None:
    lag = MarkLag()
    sent(lag, 1, 50)
    lag.marked({S: Held(0, ((50, 50),))}, 51 * NS_PER_S)
    assert lag.at(300 * NS_PER_S) == NS_PER_S


def test_one_batch_a_second_is_watched() -> None:
    lag = MarkLag()
    for at in range(10):
        lag.sent(SpooledBatch(at, "s", "one", at + 1, b""), at)
    lag.marked({S: Held(1)}, NS_PER_S)
    assert lag.at(100 * NS_PER_S) == NS_PER_S


def test_a_new_connection_begins_anew() -> None:
    lag = MarkLag()
    sent(lag, 1)
    lag.forget()
    assert lag.at(40 * NS_PER_S) == 0
