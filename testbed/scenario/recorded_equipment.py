"""Recordings as equipment of a scenario: one stream each, with the labels that are about it."""

from collections.abc import Sequence
from pathlib import Path

from broker.clock import Clock, ns_of
from broker.errors import Invalid
from broker.recordings import bundle
from broker.recordings.bundle import OpenRecording
from broker.recordings.manifest import RecordedStream
from simulators.recordings import RecordedSource, RecordedTrack
from testbed import recording_replay
from testbed.scenario import source_rows
from testbed.scenario.source_rows import Placement, ReplaySource
from testbed_scenarios.catalogue import EquipmentFacts
from testbed_scenarios.model import RecordingEquipment


def check(folder: Path, clock: Clock) -> None:
    """Compare a recording with its hashes, and its grants with the clock.

    Raises Unknown if there is none, Invalid for one that was changed, NotGranted if a grant has
    ended that it was recorded under.
    """
    recording_replay.check_grants(bundle.open_recording(folder), clock)


def facts(folder: Path, stream: str | None) -> EquipmentFacts:
    """The facts of a stream of a recording, which `check` has compared with its hashes.

    stream: its address, None where the recording has one alone.  Raises Invalid.
    """
    recording = bundle.peek(folder)
    track = _tracks(recording, stream)[0]
    if track.stream.first is None or track.stream.last is None:
        raise Invalid(f"no sample of {track.stream.address} is in the recording {folder}")
    return EquipmentFacts(
        signals=track.signals,
        first_ns=ns_of(track.stream.first),
        last_ns=ns_of(track.stream.last),
        rows=track.stream.rows,
    )


def source(folder: Path, part: RecordingEquipment, *, start_ns: int, end_ns: int) -> ReplaySource:
    """The rows of a recording between two instants of a run, and its labels as truth.

    Streams of one recording are in step where `begin` says nothing: all begin with the first row of
    any.  Raises Invalid if nothing lies in this part.
    """
    recording = bundle.peek(folder)
    tracks = _tracks(recording, part.stream)
    begin_ns = _first_ns(recording) if part.begin_ns is None else part.begin_ns
    lasting_ns = round((end_ns - start_ns) * part.speed)
    played = RecordedSource(tracks, to_ns=None if part.loop else begin_ns + lasting_ns)
    rows = list(played.rows())
    if not rows or rows[-1].time_ns < begin_ns:
        raise Invalid(
            f"nothing of {tracks[0].stream.address} lies in the part of {folder} that is played",
            hint="write another `begin`, a longer `duration` or a greater `speed`",
        )
    placement = Placement(
        start_ns=start_ns, end_ns=end_ns, begin_ns=begin_ns, speed=part.speed, loop=part.loop
    )
    recorded = source_rows.columns_of(rows, played.signals, 0)
    return ReplaySource(played.signals, recorded, placement, source_rows.labelled(rows))


def _first_ns(recording: OpenRecording) -> int:
    """The instant of the first row of any stream that is no labels alone."""
    playable = (each for each in recording.manifest.streams if _places(recording, each))
    return min(ns_of(each.first) for each in playable if each.first is not None)


def _tracks(recording: OpenRecording, name: str | None) -> Sequence[RecordedTrack]:
    """A stream's track, and those of the labels about it; raises Invalid for no such stream.

    Labels are about all streams of their equipment, or about the one that the recording has.
    """
    streams = recording.manifest.streams
    playable = {str(each.address): each for each in streams if _places(recording, each)}
    listed = ", ".join(playable)
    if not playable:
        raise Invalid(f"{recording.path} has labels alone", hint="record the machine's stream too")
    if name is None and len(playable) > 1:
        raise Invalid(
            f"{recording.path} has {len(playable)} streams",
            hint=f"write `stream:` with one of {listed}",
        )
    chosen = playable.get(next(iter(playable)) if name is None else name)
    if chosen is None:
        raise Invalid(f"{recording.path} has no stream {name!r}", hint=f"it has {listed}")
    owner = chosen.address.owner
    others = [
        each
        for each in streams
        if each is not chosen and (len(playable) == 1 or each.address.owner == owner)
    ]
    own = RecordedTrack(
        recording, chosen, 0, _places(recording, chosen), _places(recording, chosen, labels=True)
    )
    labels = [(each, _places(recording, each, labels=True)) for each in others]
    return [own, *(RecordedTrack(recording, each, 0, (), at) for each, at in labels if at)]


def _places(
    recording: OpenRecording, stream: RecordedStream, *, labels: bool = False
) -> tuple[int, ...]:
    """Places of a stream's signals that are labels, or that are none."""
    names = recording.manifest.label_names(stream.address)
    signals = enumerate(stream.signals)
    return tuple(at for at, signal in signals if (signal.name in names) is labels)
