"""Opens recordings to be played: as they were recorded, and under grants that have not ended."""

from collections.abc import Sequence
from pathlib import Path

from broker import time_expressions
from broker.clock import NS_PER_S, Clock, ns_of
from broker.errors import Invalid, NotGranted
from broker.recordings import bundle
from broker.recordings.bundle import OpenRecording
from simulators import recordings
from simulators.recordings import Alignment, RecordedSource

_FORMS = "write 90s or 1h30min for so long after its beginning, or 2026-11-23T12:00:00Z"


def source(
    paths: Sequence[Path],
    clock: Clock,
    *,
    align: str = Alignment.TIME,
    begin: str | None = None,
    end: str | None = None,
) -> RecordedSource:
    """The source of recordings that are played in step.

    begin, end: a duration after the beginning of the first recording, or an instant; None for all.
    Raises Invalid for one that was changed, NotGranted if a grant that it was recorded under has
    ended.
    """
    opened = [bundle.open_recording(path) for path in paths]
    for each in opened:
        check_grants(each, clock)
    begin_ns = ns_of(opened[0].manifest.from_)
    from_ns, to_ns = (_instant(text, begin_ns) for text in (begin, end))
    if from_ns is not None and to_ns is not None and from_ns >= to_ns:
        raise Invalid(f"{begin} is not before {end}", hint="--from is before --to")
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


def _instant(text: str | None, begin_ns: int) -> int | None:
    """The instant that an option names, None for none; raises Invalid."""
    if text is None:
        return None
    if text == "0s":
        return begin_ns
    try:
        return begin_ns + round(time_expressions.seconds(text) * NS_PER_S)
    except Invalid:
        pass
    try:
        return ns_of(text)
    except Invalid as exc:
        raise Invalid(f"{text[:40]!r} is no time of a recording", hint=_FORMS) from exc
