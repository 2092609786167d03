"""Compares ledger and store: whether the samples that the ledger lists are in this store.

The recorder numbers its flushes.  It writes the number into the store with the samples of each
organisation, and then into the ledger with what that flush settles, so that the store is at most
one number ahead, as after a kill.  Any other difference says that one of them was lost,
emptied, replaced or restored without the other.  Then the ledger takes back what it holds of
samples that are not there: gateways send again what they still have, and the rest is a gap.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace
from enum import StrEnum

import structlog

from broker.batch import Gap
from broker.clock import Clock
from broker.errors import Refused
from testbed_api.recorder import lost_gaps
from testbed_api.recorder.ledger import Ledger, Repair, StatedGap
from testbed_api.recorder.lineage import Lineage, UnsearchedSpan
from testbed_api.stores.port import Position, SeriesStore

log = structlog.get_logger()


class Mismatch(StrEnum):
    """How store and ledger do not belong together, as a sentence without its subject."""

    STORE_LOST = (
        "the store has nothing of what the ledger lists: it was lost, emptied or replaced; what"
        " gateways still have is sent again, the rest is a gap, store-lost"
    )
    STORE_OLDER = (
        "the store is older than the ledger: it was restored alone; what gateways still have is"
        " sent again, the rest is a gap, store-lost"
    )
    LEDGER_LOST = (
        "the ledger is new and the store is not: it was lost, with its gaps and dead letters;"
        " silences in the store become gaps, ledger-lost"
    )
    LEDGER_OLDER = (
        "the ledger is older than the store: it was restored alone, without its newest gaps and"
        " dead letters; silences in the store since then become gaps, ledger-lost"
    )


def compare(ledger: Lineage, organisation: str, stored: Position | None) -> Mismatch | None:
    """How a store and a ledger differ in an organisation; None if they belong together.

    stored: the position in the store.  Raises Refused where the store belongs to another ledger.
    """
    listed = ledger.positions.get(organisation)
    if stored is None:
        return None if listed is None else Mismatch.STORE_LOST
    if stored.ledger != ledger.id:
        if ledger.flushes:
            raise Refused(
                f"the store has samples of {organisation} that another ledger lists: ledger"
                f" {ledger.id} is of one testbed, the store of ledger {stored.ledger}",
                hint="put back the store or the ledger that belongs to the other, or restore a"
                " backup of both; an empty store in its place is taken as one that was lost",
            )
        return Mismatch.LEDGER_LOST
    if listed is not None and stored.flush < listed.flush:
        return Mismatch.STORE_OLDER
    # the next flush may have come into the store before the recorder was killed
    return Mismatch.LEDGER_OLDER if stored.flush > ledger.flushes + 1 else None


class Pairing:
    """Compares store and ledger once for each organisation, and again where that is in doubt."""

    def __init__(
        self, ledger: Ledger, store: SeriesStore, clock: Clock, since_ns: int | None = None
    ) -> None:
        """store: of which the ledger lists the samples.

        since_ns: from when on nobody else can have stored any; None for now.
        """
        self.mismatches = 0
        """Organisations in which store and ledger did not belong together, since the start."""
        self._ledger = ledger
        self._store = store
        self._clock = clock
        self._since_ns = clock.now_ns() if since_ns is None else since_ns
        self._lineage = Lineage("", 0, {})
        self._compared: set[str] = set()

    async def begin(self, organisations: Collection[str]) -> None:
        """Compare organisations, and all that the ledger has samples of, at a start.

        Raises Refused where the store belongs to another ledger, Unavailable if one is away.
        """
        self._lineage = await self._ledger.lineage()
        await self._compare({*organisations, *self._lineage.positions}, self._since_ns)

    async def suspects(self, organisations: Collection[str]) -> list[str]:
        """Those of some organisations that seem to differ, and that were not compared yet.

        While samples are stored the ledger goes on between two looks: `check` decides.
        """
        names = sorted(set(organisations) - self._compared)
        mismatches, _ = await self._mismatches(names) if names else ({}, {})
        self._compared.update(name for name in names if name not in mismatches)
        return sorted(mismatches)

    async def check(self, organisations: Collection[str]) -> bool:
        """Compare organisations, while nothing is listed; True if the ledger was repaired."""
        return await self._compare(organisations, self._clock.now_ns())

    async def _compare(self, organisations: Collection[str], stored_until_ns: int) -> bool:
        """Compare organisations.  stored_until_ns: when the last sample may have been stored."""
        names = sorted(organisations)
        mismatches, stored = await self._mismatches(names)
        if mismatches:
            repair = await self._repair(mismatches, stored, stored_until_ns)
            await self._take_over(repair, mismatches)
        self._compared.update(names)
        return bool(mismatches)

    async def _mismatches(
        self, names: Collection[str]
    ) -> tuple[Mapping[str, Mismatch], Mapping[str, Position]]:
        """Those of some organisations with a difference, and what the store says of them."""
        stored = await self._store.positions(names)
        mismatches = {
            name: mismatch
            for name in names
            if (mismatch := compare(self._lineage, name, stored.get(name))) is not None
        }
        return mismatches, stored

    async def _take_over(self, repair: Repair, mismatches: Mapping[str, Mismatch]) -> None:
        await self._ledger.repair(repair)
        self._lineage = repair.lineage
        self.mismatches += len(mismatches)
        for name, mismatch in mismatches.items():
            log.error(
                "store and ledger do not belong together",
                organisation=name,
                reason=str(mismatch),
                gaps=sum(stated.life.stream.organisation == name for stated in repair.gaps),
            )

    def doubt(self, organisations: Collection[str] | None = None) -> None:
        """Let organisations be compared again, None for all, after the store failed."""
        self._compared -= self._compared if organisations is None else set(organisations)

    def next(self, *, is_apart: bool) -> Position:
        """The position of the next flush.  is_apart: it is stored beside others.

        Several that are stored side by side may have the same number: so none is further ahead of
        the ledger than by one.
        """
        number = self._lineage.flushes + 1
        return Position(self._lineage.id, number, self._clock.now_ns(), is_apart)

    def advancing(self, position: Position, organisations: Collection[str]) -> list[str]:
        """Those of some organisations whose position a flush is, as they have no later one."""
        listed = self._lineage.positions
        return [
            name
            for name in organisations
            if name not in listed or listed[name].flush < position.flush
        ]

    def committed(self, position: Position, organisations: Collection[str]) -> None:
        """Take over a flush that is in the ledger, as the position of organisations."""
        positions = dict(self._lineage.positions) | dict.fromkeys(organisations, position)
        flushes = max(self._lineage.flushes, position.flush)
        self._lineage = replace(self._lineage, flushes=flushes, positions=positions)

    async def _repair(
        self,
        mismatches: Mapping[str, Mismatch],
        stored: Mapping[str, Position],
        stored_until_ns: int,
    ) -> Repair:
        """Make the notes of the ledger, which from now on lists what is in the store."""
        now_ns, before = self._clock.now_ns(), self._lineage
        lists = {stored[name].ledger for name in mismatches if name in stored}
        if len(lists) > 1:
            raise Refused(
                f"different ledgers list the samples of {', '.join(sorted(mismatches))}",
                hint="put back the ledger, or restore a backup",
            )
        positions = dict(before.positions)
        for name in mismatches:
            positions.pop(name, None)
            if name in stored:
                positions[name] = stored[name]
        numbers = [before.flushes, *(stored[name].flush for name in mismatches if name in stored)]
        repair = Repair(replace(before, flushes=max(numbers), positions=positions))
        for name, mismatch in mismatches.items():
            listed = before.positions.get(name)
            if mismatch in {Mismatch.STORE_LOST, Mismatch.STORE_OLDER}:
                repair.taken_back.append(name)
                # at least until its last flush, as the clock may have been set since
                until_ns = max(stored_until_ns, 0 if listed is None else listed.time_ns)
                repair.gaps += await self._lost(name, min(until_ns, now_ns))
                continue
            repair.lineage = replace(repair.lineage, id=stored[name].ledger, lost_ns=now_ns)
            since_ns = None if listed is None else listed.time_ns
            repair.unsearched += [
                UnsearchedSpan(*key, since_ns, now_ns) for key in await self._ledger.streams(name)
            ]
        return repair

    async def _lost(self, organisation: str, until_ns: int) -> list[StatedGap]:
        """A gap for each stream, from where the store ends."""
        gaps = []
        for space, stream, first_ns in await self._ledger.samples_begin(organisation):
            extent = await self._store.extent(space, stream)
            from_ns = first_ns if extent is None else extent[1] + 1
            if from_ns < until_ns:
                gap = Gap((), from_ns, until_ns, lost_gaps.STORE_LOST)
                gaps.append(StatedGap.of_stream((space, stream), gap))
        return gaps
