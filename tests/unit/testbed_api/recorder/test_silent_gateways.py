"""A gateway is silent once none of the healths that it published is valid any more."""

from broker.clock import NS_PER_S, SteppedClock, ns_of
from broker.messages import Freshness, Health
from broker.namespace import EquipmentAddress, StreamAddress
from testbed_api.recorder.freshness import FreshnessTracker

NOON_NS = ns_of("2026-11-23T12:00:00Z")
RIG, PRESS = EquipmentAddress("factory", "rig"), EquipmentAddress("factory", "press")


def tracker_of(clock, *healths):
    """A tracker that has received these (space, equipment, stream, seconds that it is valid)."""
    tracker = FreshnessTracker(clock)
    for space, equipment, stream, valid_s in healths:
        until_ns = NOON_NS + valid_s * NS_PER_S
        health = Health(state=Freshness.FRESH, at_ns=NOON_NS, valid_until_ns=until_ns)
        tracker.take(
            space, StreamAddress(equipment.organisation, equipment.equipment, stream), health
        )
    return tracker


def test_a_gateway_with_one_valid_health_is_not_silent():
    clock = SteppedClock(NOON_NS)
    tracker = tracker_of(clock, ("live", RIG, "a", 5), ("live", RIG, "removed", -3_600))
    assert tracker.silent_gateways() == {}


async def test_a_gateway_is_silent_since_its_last_health_ran_out():
    clock = SteppedClock(NOON_NS)
    tracker = tracker_of(
        clock, ("live", RIG, "a", 5), ("live", RIG, "b", 7), ("live", PRESS, "a", 60)
    )
    await clock.advance(8)
    assert tracker.silent_gateways() == {("live", RIG): NOON_NS + 7 * NS_PER_S}


def test_a_gateway_is_silent_in_one_space_and_not_in_another():
    clock = SteppedClock(NOON_NS)
    tracker = tracker_of(clock, ("live", RIG, "a", 5), ("run-1", RIG, "a", -1))
    assert tracker.silent_gateways() == {("run-1", RIG): NOON_NS - NS_PER_S}
