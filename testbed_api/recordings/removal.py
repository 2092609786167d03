"""Removes recordings: with samples that are deleted, and those that a process left half made."""

from dataclasses import dataclass

import structlog

from broker.clock import Clock
from broker.recordings.server_states import RecordingState
from broker.rights import Entry
from testbed_api.domain.audit import AuditContext, AuditEntry, OtherAction
from testbed_api.domain.recordings import ServerRecording
from testbed_api.recordings.shelf import RecordingShelf
from testbed_api.registry.registry import Registry
from testbed_api.retention.deletions import Deletion, Reason

LEFT = "the server stopped while it was being made; nothing of it is left"

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingRemoval:
    """Removes recordings without anybody who asks for it just then.

    registry: makes changes with an audit entry alone.
    """

    registry: Registry
    shelf: RecordingShelf
    clock: Clock

    async def with_deletion(self, deletion: Deletion) -> None:
        """Delete the recordings that hold samples of a span that is deleted.

        A retention leaves the recordings of the stream's own organisation.
        """
        span, by = deletion.span, deletion.by
        stream, is_retention = span.stream, deletion.reason is Reason.RETENTION
        holding = await self.registry.recordings.holding(
            Entry(span.space, stream), span.from_ns, span.to_ns, others=is_retention
        )
        why = f"by {by} of {stream.organisation}"
        if by is None:
            why = "by its retention" if is_retention else f": {deletion.why}"
        for recording in holding:
            reason = f"samples of {stream} that it held were deleted {why}"
            context = self._context(recording, owner=stream.organisation, reason=reason)
            async with self.registry.change(context, self.clock) as change:
                at_ns = self.clock.now_ns()
                await change.recordings.delete(recording.id, by=by, reason=reason, at_ns=at_ns)
            await self.shelf.remove(recording.id)
            log.info("recording was deleted", recording=recording.id, reason=reason)

    async def recover(self) -> None:
        """Note what ended API processes left half made, and remove the files of what is not
        complete.

        What other processes make, which run, stays.
        """
        present = self.shelf.numbers()  # before the rows: what is begun meanwhile is not among it
        recordings = await self.registry.recordings.in_state(
            RecordingState.MAKING, RecordingState.COMPLETE
        )
        making = [each for each in recordings if each.state is RecordingState.MAKING]
        left = [each for each in making if self.shelf.has_ended(each.maker)]
        for recording in left:
            context = self._context(recording, owner=recording.owners[0], reason=LEFT)
            async with self.registry.change(context, self.clock) as change:
                await change.recordings.fail(recording.id, LEFT, self.clock.now_ns())
        standing = {each.id for each in recordings} - {each.id for each in left}
        await self.shelf.sweep(present - standing)

    def _context(self, recording: ServerRecording, *, owner: str, reason: str) -> AuditContext:
        """The context of a removal that the server itself does."""
        facts = {"recording": recording.id, "made_by": recording.made_by, "reason": reason}
        return AuditContext(
            action=OtherAction.REMOVE_RECORDING,
            target=f"recording {recording.id}",
            organisation=recording.organisation,
            owner=owner,
            entry=AuditEntry(facts),
        )
