"""The order of a run's members by what they read of each other."""

import pytest

from broker.namespace import EquipmentAddress, StreamAddress
from testbed.scenario.member_order import ClockMember, MemberOrder


def member(name, *reads):
    inputs = frozenset(StreamAddress("o", each, "out") for each in reads)
    return ClockMember(name=name, address=EquipmentAddress("o", name), inputs=inputs)


def order(*members):
    return MemberOrder.of([member(*each) for each in members])


@pytest.mark.parametrize(
    ("members", "levels"),
    [
        ([], ()),
        ([("a", "rig"), ("b", "rig")], (("a", "b"),)),
        ([("b", "a"), ("a", "rig")], (("a",), ("b",))),
        ([("d", "b", "c"), ("c", "a"), ("b", "a"), ("a", "rig")], (("a",), ("c", "b"), ("d",))),
        ([("a", "b", "rig"), ("b", "a")], (("a",), ("b",))),
        ([("a", "a")], (("a",),)),
        ([("b", "a"), ("a", "b", "c"), ("c", "rig")], (("c", "b"), ("a",))),
    ],
)
def test_who_is_read_comes_first(members, levels):
    ordered = order(*members).levels
    assert tuple(tuple(each.name for each in level) for level in ordered) == levels


def test_a_circle_is_read_forward_once_and_back_in_the_next_quantum():
    circle = order(("a", "b", "rig"), ("b", "a"))
    a, b = (EquipmentAddress("o", name) for name in "ab")
    assert circle.is_forward(a, b)
    assert not circle.is_forward(b, a)
    assert not order(("a", "a")).is_forward(a, a)
