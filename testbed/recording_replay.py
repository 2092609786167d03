"""Opens recordings to be played: as they were recorded, and under grants that have not ended."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from broker.clock import NS_PER_S, Clock, ns_of
from broker.errors import Invalid, NotGranted
from broker.recordings import bundle
from broker.recordings.bundle import OpenRecording
from simulators import recordings
from simulators.recordings import Alignment, RecordedSource


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A part of recordings, on the time axis of the first one; all of them where nothing is said.

    skip_s: time that is left out at the beginning.  begin, end: instants; the first is included and
    the second not.
    """

    skip_s: float | None = None
    begin: str | None = None
    end: str | None = None

    def ends(self, begin_ns: int) -> tuple[int | None, int | None]:
        """The ends of the part, None for those of the recordings; raises Invalid.

        begin_ns: the beginning of the first recording.
        """
        if self.skip_s is not None and self.begin is not None:
            raise Invalid("--skip and --from at once", hint="give one of them")
        from_ns = None if self.begin is None else ns_of(self.begin)
        if self.skip_s is not None:
            from_ns = begin_ns + round(self.skip_s * NS_PER_S)
        to_ns = None if self.end is None else ns_of(self.end)
        if from_ns is not None and to_ns is not None and from_ns >= to_ns:
            raise Invalid("the part has no length", hint="--from is before --to")
        return from_ns, to_ns


def source(
    paths: Sequence[Path],
    clock: Clock,
    *,
    align: str = Alignment.TIME,
    part: Part | None = None,
) -> RecordedSource:
    """The source of recordings that are played in step.

    part: that is played, None for all.  Raises Invalid for a recording that was changed,
    NotGranted if a grant that it was recorded under has ended.
    """
    opened = [bundle.open_recording(path) for path in paths]
    for each in opened:
        check_grants(each, clock)
    from_ns, to_ns = (part or Part()).ends(ns_of(opened[0].manifest.from_))
    alignment = Alignment.parse(align)
    return recordings.source(opened, alignment=alignment, from_ns=from_ns, to_ns=to_ns)


def check_grants(recording: OpenRecording, clock: Clock) -> None:
    """Raise NotGranted if the grants of one of its streams have all ended.

    The ends are those that were known when it was recorded.
    """
    for stream, grant in recording.manifest.ended_grants(clock.now_ns()):
        raise NotGranted(
            f"{recording.path} may not be used any more: grant {grant}, under which {stream} was"
            " read, has ended",
            hint="ask its owner for a new one, and record it again; delete this recording",
        )
