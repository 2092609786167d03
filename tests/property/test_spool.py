"""The spool against a model of it: whatever is marked, taken back, cut off or full."""

import asyncio
import shutil
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import orjson
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from broker.batch import Batch, Source, Wide
from broker.clock import NS_PER_S
from broker.errors import Unavailable
from broker.messages import Held
from gateway.spool import file, spool
from gateway.spool.lives import StreamLife
from gateway.spool.rows import SpooledBatch
from gateway.spool.spool import Spool, SpoolSettings

COUNTS = (1, 50)
"""Samples of a batch; with one it is no larger than a gap in its place."""
KEEP_S = 20
STREAMS = st.sampled_from("stu")
Id = tuple[str, str, int]
"""Stream, epoch and sequence number of a batch."""
Life = tuple[str, str]
T = TypeVar("T")


def batch(at: int, count: int) -> Batch:
    frame = Wide(np.arange(at, at + count), {"a": np.arange(count) * 0.5})
    return Batch(1, (frame,), Source.LIVE)


def number(spooled: SpooledBatch) -> Id:
    return spooled.stream, spooled.epoch, spooled.seq


class SpoolMachine(RuleBasedStateMachine):
    """One gateway's spool, its recorder and its clock.

    copy: of the folder.  life: number of the present one.  sent_ns: when each batch was sent last;
    missing where it may be sent at any time.  news: what is to go now, whenever it went before.
    doubted: what waits though the file may say that it is marked, since a life after it began.
    """

    most_bytes = 2**30

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = Path(tempfile.mkdtemp())
        self.copy = 0
        self.life = 0
        self.now_ns = 10**18
        self.last: dict[Life, int] = {}
        self.held: dict[Life, Held] = {}
        self.committed_ns: dict[Id, int] = {}
        self.sent_ns: dict[Id, int] = {}
        self.marked_ns: dict[Id, int] = {}
        self.there: dict[Id, bytes] = {}
        self.news: set[Id] = set()
        self.doubted: set[Id] = set()

    def run(self, doing: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(doing)

    @property
    def path(self) -> Path:
        return self.folder / str(self.copy) / "s.sqlite"

    @initialize()
    def opened(self) -> None:
        keep = SpoolSettings(most_bytes=self.most_bytes, keep_marked_s=KEEP_S, least_free_bytes=0)
        self.life += 1
        self.opening = spool.open(self.path, epoch=self.epoch, settings=keep)
        self.kept: Spool = self.run(self.opening.__aenter__())
        self.doubt_the_last()
        self.run(self.kept.all_due())  # as at every connection
        self.sent_ns.clear()

    @property
    def epoch(self) -> str:
        return f"e{self.life}"

    def doubt_the_last(self) -> None:
        """The last batch of each life before, if it is in the file, goes again."""
        for life, seq in self.last.items():
            if (*life, seq) in self.there and seq in self.held.get(life, Held(0)):
                numbers = range(1, seq)
                held = self.held[life]
                self.held[life] = Held(0).including(at for at in numbers if at in held)
                self.marked_ns.pop((*life, seq), None)
                self.doubted.add((*life, seq))

    def closed(self) -> None:
        self.run(self.opening.__aexit__(None, None, None))

    def teardown(self) -> None:
        self.closed()
        self.loop.close()
        shutil.rmtree(self.folder)

    # --- what happens -----------------------------------------------------------------------------

    @rule(
        brings=st.lists(st.tuples(STREAMS, st.sampled_from(COUNTS)), max_size=8),
        after_s=st.integers(0, 15),
    )
    def commit(self, brings: list[tuple[str, int]], after_s: int) -> None:
        self.now_ns += after_s * NS_PER_S
        batches = [(stream, batch(self.now_ns, count)) for stream, count in brings]
        try:
            taken = self.run(self.kept.commit(batches, self.now_ns))
        except Unavailable:
            self.refused()
            return
        for spooled in taken:
            life = spooled.stream, spooled.epoch
            assert spooled.epoch == self.epoch
            self.last[life] = self.last.get(life, 0) + 1
            assert spooled.seq == self.last[life]
            self.committed_ns[number(spooled)] = self.sent_ns[number(spooled)] = self.now_ns

    def refused(self) -> None:
        raise AssertionError("there was room")

    @precondition(lambda self: self.last)
    @rule(data=st.data(), grows=st.booleans())
    def mark(self, data: st.DataObject, *, grows: bool) -> None:
        life = data.draw(st.sampled_from(list(self.last)))
        seqs = st.integers(1, self.last[life])
        ranges = data.draw(st.lists(st.tuples(seqs, seqs).map(sorted), max_size=3))
        before = self.held.get(life, Held(0))
        mark = Held.from_ranges([*((a, b) for a, b in ranges), *(before.ranges if grows else ())])
        self.tell(life, mark)

    @precondition(lambda self: self.last)
    @rule()
    def mark_all(self) -> None:
        for life, seq in self.last.items():
            self.tell(life, Held(seq))

    def tell(self, life: Life, mark: Held) -> None:
        self.kept.mark({StreamLife(*life): mark})
        self.run(self.kept.depth())
        before = self.held.get(life, Held(0))
        self.replace(life, mark)
        now = self.held[life]
        if any(id_[:2] == life and id_[2] in before and id_[2] not in now for id_ in self.there):
            for former in self.last:  # the recorder may have been restored to before them
                if former != life and former[1] != self.epoch:
                    self.replace(former, Held(0))
            self.marked_ns = dict.fromkeys(self.marked_ns, self.now_ns)
            self.sent_ns.clear()

    def replace(self, life: Life, mark: Held) -> None:
        before = self.held.get(life, Held(0))
        numbers = range(1, self.last[life] + 1)
        self.held[life] = now = Held(0).including(seq for seq in numbers if seq in mark)
        if now != before:
            self.doubted -= {(*life, seq) for seq in numbers}
        for seq in numbers:
            if seq in now and seq not in before:
                self.marked_ns[*life, seq] = self.now_ns

    @rule(after_s=st.integers(0, 70), limit=st.integers(1, 5))
    def send_again(self, after_s: int, limit: int) -> None:
        self.now_ns += after_s * NS_PER_S
        while due := self.run(self.kept.due(self.now_ns, limit)):
            assert len(due) <= limit
            self.sent(due)
        self.news.clear()
        for id_ in self.waiting:  # nothing is forgotten
            assert id_ in self.sent_ns
            if self.sent_ns[id_] == self.committed_ns[id_]:
                assert self.now_ns - self.committed_ns[id_] < 10 * NS_PER_S

    def sent(self, due: list[SpooledBatch]) -> None:
        assert [spooled.id for spooled in due] == sorted(spooled.id for spooled in due)
        for spooled in due:
            id_ = number(spooled)
            assert id_ in self.waiting
            assert spooled.body == self.there[id_]
            if id_ in self.sent_ns and self.now_ns - self.sent_ns[id_] < 10 * NS_PER_S:
                self.news.remove(id_)
            self.sent_ns[id_] = self.now_ns

    @rule()
    def wait_long(self) -> None:
        since_ns = self.now_ns
        for _ in range(3):
            self.send_again(after_s=61, limit=50)
        assert all(self.sent_ns[id_] > since_ns for id_ in self.waiting)

    @rule()
    def reconnect(self) -> None:
        self.run(self.kept.all_due())
        self.sent_ns.clear()

    @rule()
    def restart(self) -> None:
        self.closed()
        least = len(set(self.waiting) - self.doubted)
        assert least <= file.unmarked(self.path) <= len(self.waiting)
        self.opened()
        self.marked_ns = dict.fromkeys(self.marked_ns, self.now_ns)

    @rule()
    def kill(self) -> None:
        """What the disk has at this moment; the recorder tells again what it holds."""
        before = self.path.parent
        self.copy += 1
        shutil.copytree(before, self.path.parent)
        self.closed()
        self.opened()
        for life, held in list(self.held.items()):
            self.tell(life, held)
        self.sent_ns.clear()
        self.marked_ns = dict.fromkeys(self.marked_ns, self.now_ns)

    # --- what holds at any time -------------------------------------------------------------------

    @property
    def waiting(self) -> list[Id]:
        nothing = Held(0)
        return [id_ for id_ in self.there if id_[2] not in self.held.get(id_[:2], nothing)]

    @invariant()
    def only_what_was_marked_is_gone(self) -> None:
        bodies = self.run(self.kept.bodies())
        now = {number(spooled): spooled.body for spooled in bodies}
        assert len(now) == len(bodies)
        fresh = {id_ for id_ in self.committed_ns if id_ not in self.marked_ns}
        for id_ in self.there.keys() | fresh:
            if id_ not in now:
                self.may_be_gone(id_)
        for id_, body in now.items():
            document = orjson.loads(body)
            assert (document["epoch"], document["seq"]) == id_[1:]
            if not document["frames"] and self.there.get(id_) != body:
                self.became_gaps(id_, document)
        self.there = now

    def may_be_gone(self, id_: Id) -> None:
        assert id_[2] in self.held.get(id_[:2], Held(0))
        assert self.now_ns - self.marked_ns[id_] >= KEEP_S * NS_PER_S

    def became_gaps(self, id_: Id, _: dict[str, Any]) -> None:
        raise AssertionError(f"{id_} was changed")

    @invariant()
    def the_depth_is_right(self) -> None:
        depth = self.run(self.kept.depth())
        oldest_ns = min((self.committed_ns[id_] for id_ in self.waiting), default=None)
        size = sum(len(body) for body in self.there.values())
        assert (depth.unmarked, depth.bytes) == (len(self.waiting), size)
        assert depth.oldest_ns == oldest_ns


class FullSpoolMachine(SpoolMachine):
    """With room for some ten batches: the oldest become gaps, but for small ones."""

    most_bytes = 2_000

    def __init__(self) -> None:
        super().__init__()
        self.passed: set[Id] = set()

    @initialize()
    def opened(self) -> None:
        super().opened()
        self.passed.clear()

    def refused(self) -> None:
        """Only where nothing is left to let go, or to drop but what is no larger than its gap."""
        now = self.run(self.kept.bodies())
        for frames in (orjson.loads(spooled.body)["frames"] for spooled in now):
            assert not frames or len(frames[0]["dt"]) == min(COUNTS)
        assert {number(spooled) for spooled in now} <= set(self.waiting)

    @invariant()
    def it_never_holds_more_than_it_may(self) -> None:
        assert self.run(self.kept.depth()).bytes <= self.most_bytes

    def may_be_gone(self, id_: Id) -> None:
        assert id_[2] in self.held.get(id_[:2], Held(0))

    def became_gaps(self, id_: Id, document: dict[str, Any]) -> None:
        assert document["frames"] == []
        assert [gap["cause"] for gap in document["gaps"]] == ["spool-full"]
        assert id_[2] not in self.held.get(id_[:2], Held(0))
        self.sent_ns.pop(id_, None)  # at once
        ids = list(self.committed_ns)
        older = set(ids[: ids.index(id_)]) - self.passed
        self.passed |= older  # they go with it, once
        self.news |= {id_, *older}


SpoolMachine.TestCase.settings = settings(max_examples=12, stateful_step_count=25, deadline=None)
FullSpoolMachine.TestCase.settings = SpoolMachine.TestCase.settings
TestSpool = SpoolMachine.TestCase
TestFullSpool = FullSpoolMachine.TestCase
