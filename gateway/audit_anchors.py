"""Heads of the testbed's audit, kept where who runs the testbed does not write.

An anchor is a head that somebody else keeps: a chain that is cut or rewritten later, with all its
own heads and by who has the key, still does not fit it.
"""

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

import structlog

from broker import audit_head
from broker.audit_head import Head
from broker.bus import client
from broker.clock import NS_PER_S
from broker.errors import Corrupt
from broker.namespace import AnchorTopic, EquipmentAddress

MOST = 4_000
"""Anchors in the file before old ones go: not quite three days of them, and one a day before."""
RECENT = 2_000
DAY_NS = 86_400 * NS_PER_S

log = structlog.get_logger()


class Anchors:
    """The file: a line of JSON each, only ever added to, and made smaller now and then."""

    def __init__(self, path: Path) -> None:
        """path: made with the first anchor."""
        self._path = path
        self._kept = _read(path)

    @property
    def newest(self) -> Head | None:
        """The one that came last."""
        return self._kept[-1] if self._kept else None

    def add(self, head: Head) -> None:
        """Keep one durably, unless it is the newest already; raises OSError.

        Says so if the chain has become shorter, or its key is another: an operator should know why.
        """
        before = self.newest
        if head == before:
            return
        if before is not None and head.count < before.count:
            log.error("audit became shorter", events=head.count, before=before.count)
        if before is not None and head.key != before.key:
            log.warning("audit has another key", key=head.key, before=before.key)
        self._kept.append(head)
        if len(self._kept) > MOST:
            self._kept = thinned(self._kept)
            self._write_anew()
        else:
            with self._path.open("ab") as opened:
                _put(opened.fileno(), [head])

    def _write_anew(self) -> None:
        new = self._path.with_suffix(".new")
        with new.open("wb") as opened:
            _put(opened.fileno(), self._kept)
        new.replace(self._path)


def thinned(kept: Sequence[Head]) -> list[Head]:
    """The newest, and before them the last of each day."""
    old, recent = kept[:-RECENT], kept[-RECENT:]
    by_day = {one.time_ns // DAY_NS: one for one in old}
    return [*by_day.values(), *recent]


async def keep(bus: client.Bus, equipment: EquipmentAddress, path: Path) -> None:
    """Take what the testbed hands out, and keep it, until cancelled.

    A disk that takes nothing is said once; an anchor that is missing costs an hour of proof, not
    data.
    """
    anchors = await asyncio.to_thread(Anchors, path)
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
                log.warning("anchor was not taken", reason=str(exc))
            except OSError as exc:
                if not failing:
                    log.warning("anchor was not kept", file=str(path), reason=str(exc))
                failing = True


def _read(path: Path) -> list[Head]:
    """What is there; a line that a crash cut off is passed over."""
    found = []
    for line in path.read_bytes().splitlines() if path.exists() else ():
        try:
            found.append(audit_head.decode(line))
        except Corrupt as exc:
            log.warning("anchor was not read", file=str(path), reason=str(exc))
    return found


def _put(file: int, kept: Sequence[Head]) -> None:
    """Write lines, and return once they are on disk."""
    text = b"".join(audit_head.encode(one) + b"\n" for one in kept)
    while text:
        text = text[os.write(file, text) :]
    os.fsync(file)
