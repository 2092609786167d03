"""A server whose queues drop the oldest value unseen: each value came, or lies in a gap."""

from collections import deque

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gateway.links.opcua.data_changes import FLOAT, DataChanges
from gateway.links.opcua.full_queues import UNKNOWN, FullQueues

PERIOD = 10
SIZES = (1, 3, 5)
OVERFLOWED = 0x0480


def changes(rows: list[tuple[int, int]], status: int = 0) -> DataChanges:
    """Values of (handle, time_ns)."""
    return DataChanges(
        handle=np.array([handle for handle, _ in rows], np.uint32),
        time_ns=np.array([time_ns for _, time_ns in rows], np.int64),
        status=np.full(len(rows), status, np.uint32),
        kind=np.full(len(rows), FLOAT, np.uint8),
        floats=np.zeros(len(rows)),
        ints=np.empty(0, np.int64),
        others=np.empty(0, np.object_),
    )


class SilentServer:
    """Queues that drop their oldest value without a bit, published in messages of a limited size.

    turns: whether a message holds the items' values in turn, or one item after the other.
    """

    def __init__(self, most: int, *, turns: bool) -> None:
        self._queues = {handle: deque() for handle in range(1, len(SIZES) + 1)}
        self._most = most
        self._turns = turns
        self._time_ns = 0

    def sample(self, times: int) -> list[tuple[int, int]]:
        """Sample every item so often; returns what was offered."""
        offered = []
        for _ in range(times):
            self._time_ns += PERIOD
            for handle, queue in self._queues.items():
                if len(queue) == SIZES[handle - 1]:
                    queue.popleft()
                queue.append(self._time_ns)
                offered.append((handle, self._time_ns))
        return offered

    def publish(self) -> tuple[list[tuple[int, int]], bool]:
        """The values of one message, and whether there are more."""
        rows = [(handle, at) for handle, queue in self._queues.items() for at in queue]
        if self._turns:
            rows.sort(key=lambda row: row[1])
        sent = rows[: self._most]
        for handle, at in sent:
            self._queues[handle].remove(at)
        return sent, len(rows) > self._most


@given(
    rounds=st.lists(st.tuples(st.integers(0, 12), st.integers(1, 4)), min_size=1, max_size=12),
    most=st.integers(1, 12),
    turns=st.booleans(),
)
def test_what_a_full_queue_dropped_lies_between_the_two_values_that_are_returned(
    *, rounds: list[tuple[int, int]], most: int, turns: bool
) -> None:
    server = SilentServer(most, turns=turns)
    full_queues = FullQueues(SIZES, [PERIOD] * len(SIZES))
    offered = server.sample(1)
    came: list[tuple[int, int]] = []
    gaps: list[tuple[int, int, int]] = []
    more = False
    for times, messages in [(0, 99), *rounds, (0, 99)]:
        offered += server.sample(times)
        for _ in range(messages):
            rows, more = server.publish()
            if rows:
                gaps += full_queues.take(changes(rows), more=more)
                came += rows
    assert not more
    for handle, at in offered:
        is_covered = any(it == handle and begin < at < end for it, begin, end in gaps)
        assert ((handle, at) in came) != is_covered, (handle, at, gaps)


def test_a_queue_that_is_not_full_loses_nothing() -> None:
    full_queues = FullQueues([3, 3], [15, 15])
    full_queues.take(changes([(1, 10), (2, 10)]), more=False)
    assert full_queues.take(changes([(1, 50), (1, 60), (2, 50)]), more=False) == []
    assert full_queues.take(changes([(1, 90), (1, 95), (1, 99)]), more=False) == [(1, 60, 90)]
    assert full_queues.take(changes([(1, 110), (1, 120), (1, 130)]), more=False) == []


def test_a_queue_is_full_also_over_several_messages() -> None:
    full_queues = FullQueues([3], [15])
    full_queues.take(changes([(1, 10)]), more=False)
    assert full_queues.take(changes([(1, 50), (1, 60)]), more=True) == []
    assert full_queues.take(changes([(1, 90)]), more=False) == [(1, 10, 50), (1, 60, 90)]
    assert full_queues.take(changes([(1, 130)]), more=False) == []


def test_while_the_server_always_has_more_each_message_may_follow_a_loss() -> None:
    full_queues = FullQueues([2], [15])
    full_queues.take(changes([(1, 10)]), more=False)
    assert full_queues.take(changes([(1, 50), (1, 60)]), more=True) == [(1, 10, 50)]
    assert full_queues.take(changes([(1, 90)]), more=True) == [(1, 60, 90)]
    assert full_queues.take(changes([(1, 100)]), more=False) == []


def test_what_the_server_reports_itself_is_not_found_twice() -> None:
    full_queues = FullQueues([2], [15])
    full_queues.take(changes([(1, 10)]), more=False)
    assert full_queues.take(changes([(1, 50), (1, 60)], OVERFLOWED), more=False) == []
    assert full_queues.take(changes([(1, 90), (1, 99)]), more=False) == [(1, 60, 90)]


def test_unknown_sizes_unknown_handles_and_first_values_prove_nothing() -> None:
    full_queues = FullQueues([UNKNOWN, 1], [0, 15])
    assert full_queues.take(changes([(2, 10), (9, 10)]), more=False) == []
    assert full_queues.take(changes([(1, 10)] * 50), more=False) == []
    assert full_queues.take(changes([]), more=False) == []
