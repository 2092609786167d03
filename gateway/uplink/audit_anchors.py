"""Audit anchors: signed heads of the testbed's audit chain, stored by a gateway as evidence.

A gateway's disk is outside the reach of the testbed's operator.  An audit chain that is cut or
rewritten later does not fit the heads that gateways stored before, even if its signing key is
known to the person who rewrote it.
"""

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

import structlog

from broker import audit_head
from broker.audit_head import Head
from broker.bus import client
from broker.clock import DAY_NS
from broker.errors import Corrupt
from broker.namespace import AnchorTopic, EquipmentAddress

MOST = 4_000
"""Anchors in the file before old ones are thinned: almost three days of them, and one a day."""
RECENT = 2_000

log = structlog.get_logger()


class AnchorFile:
    """A file with one anchor a line, as JSON; appended to, and rewritten when it is thinned."""

    def __init__(self, path: Path) -> None:
        """path: created with the first anchor."""
        self._path = path
        self._heads = _read(path)

    @property
    def newest(self) -> Head | None:
        """The anchor added last."""
        return self._heads[-1] if self._heads else None

    def add(self, head: Head) -> None:
        """Store an anchor durably, unless it equals the newest; raises OSError.

        Logs if the chain became shorter or its key changed, because an operator should know why.
        """
        before = self.newest
        if head == before:
            return
        if before is not None and head.count < before.count:
            log.error("audit became shorter", events=head.count, before=before.count)
        if before is not None and head.key != before.key:
            log.warning("audit has another key", key=head.key, before=before.key)
        self._heads.append(head)
        if len(self._heads) > MOST:
            self._heads = thinned(self._heads)
            self._rewrite()
        else:
            with self._path.open("ab") as file:
                _append(file.fileno(), [head])

    def _rewrite(self) -> None:
        new = self._path.with_suffix(".new")
        with new.open("wb") as file:
            _append(file.fileno(), self._heads)
        new.replace(self._path)


def thinned(heads: Sequence[Head]) -> list[Head]:
    """Choose the heads to keep: the newest ones, and of older days the last head each."""
    old, recent = heads[:-RECENT], heads[-RECENT:]
    by_day = {head.time_ns // DAY_NS: head for head in old}
    return [*by_day.values(), *recent]


async def store(bus: client.Bus, equipment: EquipmentAddress, path: Path) -> None:
    """Store the anchors that the testbed publishes for an equipment, until cancelled.

    A disk error is logged once until it is over: a missing anchor loses an hour of evidence and no
    samples.
    """
    anchors = await asyncio.to_thread(AnchorFile, path)
    failing = False
    topic = str(AnchorTopic(equipment))
    async with bus.subscribe([topic], capacity=10, overflow="drop_oldest") as inbox:
        async for message in inbox:
            inbox.ack(message)
            try:
                head = audit_head.decode(message.payload)
                if not head.is_signed:
                    raise Corrupt("a head with a forged signature")
                await asyncio.to_thread(anchors.add, head)
                failing = False
            except Corrupt as exc:
                log.warning("anchor was refused", reason=str(exc))
            except OSError as exc:
                if not failing:
                    log.warning("anchor was not stored", file=str(path), reason=str(exc))
                failing = True


def _read(path: Path) -> list[Head]:
    """The anchors of a file; a line that a crash cut off is skipped and logged."""
    heads = []
    for line in path.read_bytes().splitlines() if path.exists() else ():
        try:
            heads.append(audit_head.decode(line))
        except Corrupt as exc:
            log.warning("anchor was not read", file=str(path), reason=str(exc))
    return heads


def _append(descriptor: int, heads: Sequence[Head]) -> None:
    """Write lines, and return once they are on disk."""
    text = b"".join(audit_head.encode(head) + b"\n" for head in heads)
    while text:
        text = text[os.write(descriptor, text) :]
    os.fsync(descriptor)
