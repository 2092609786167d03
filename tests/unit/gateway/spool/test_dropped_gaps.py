"""The gaps that stand for samples that were not kept."""

from broker.batch import Gap
from gateway.spool import dropped_gaps
from gateway.spool.dropped_gaps import FAILED, FOLLOWS_NS

S = 10**9


def test_what_is_not_kept_one_after_another_is_one_hole_a_signal() -> None:
    gaps = [Gap((), at * S, at * S + S // 2, FAILED) for at in range(1_000)]
    other = Gap(("a",), 5, 6, "server-overflow")
    assert dropped_gaps.joined([other, *gaps], ("a", "b")) == [
        other,
        Gap(("a", "b"), 0, 999 * S + S // 2, FAILED),
    ]


def test_signals_with_holes_of_their_own_keep_them() -> None:
    gaps = [Gap(("a",), 0, 10, FAILED), Gap(("b",), 5, 10, FAILED), Gap(("a",), 20, 30, FAILED)]
    assert dropped_gaps.joined(gaps, ("a", "b")) == [
        Gap(("a",), 0, 30, FAILED),
        Gap(("b",), 5, 10, FAILED),
    ]


def test_a_sample_that_came_late_does_not_stretch_a_hole_over_what_is_stored() -> None:
    now = Gap(("a",), 86_400 * S, 86_401 * S, FAILED)
    late = Gap(("a",), 7, 7, FAILED)
    again = dropped_gaps.joined(dropped_gaps.joined([now, late], ("a",)), ("a",))
    assert again == [late, now]
    just_beyond = Gap(("a",), now.to_ns + FOLLOWS_NS + 1, now.to_ns + FOLLOWS_NS + 2, FAILED)
    assert len(dropped_gaps.joined([now, just_beyond], ("a",))) == 2
