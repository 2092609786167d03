"""What whoever comes in may hear, also while that is changed."""

from broker.backends.mosquitto.dynamic_security import ClientAccess
from broker.policy import Topics
from testbed_api.broker_auth.mosquitto_topics import Reach


def admitted(*read):
    return ClientAccess(Topics(frozenset(), frozenset(read)), "hash")


BOTH, ONE = {"ada": admitted("a", "b")}, {"ada": admitted("a")}


def test_who_comes_in_while_a_right_ends_may_still_have_had_it():
    reach = Reach()
    reach.begin(BOTH)
    reach.change(BOTH, ONE)
    assert reach.of("ada") == {"a", "b"}


def test_who_was_sent_away_comes_back_without_it():
    reach = Reach()
    reach.change(BOTH, ONE)
    reach.went("ada")
    assert reach.of("ada") == {"a"}


def test_who_comes_in_afterwards_has_what_is_now():
    reach = Reach()
    reach.change(BOTH, ONE)
    reach.change(ONE, {})
    assert reach.of("ada") == {"a", "b"}
    reach.settle()
    assert reach.of("ada") == set()
