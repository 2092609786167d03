"""Plays recordings as if they were the machines: one or several of them, in step.

A row is an instant at which at least one signal has a sample; the others have none in it, so what
is played is sample for sample what was recorded, and no value is repeated or invented.  A sample
that was bad is played as bad.  Labels are no variables of the machine: they say of each row whether
it is anomalous, from their own time stamp until their next one.
"""

import heapq
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby
from typing import Self

from broker.batch import NO_SAMPLE
from broker.clock import ns_of, text_of
from broker.errors import Invalid
from broker.recordings import parquet
from broker.recordings.bundle import OpenRecording
from broker.recordings.manifest import RecordedStream
from broker.streams import Signal
from simulators.model import ObjectNode, SourceRow, SourceValue
from simulators.replay import LABELLED

_Sampled = tuple[int, int, tuple[SourceValue, ...], tuple[int, ...]]
"""Time on the common axis, place of the track, values and qualities of its signals."""


class Alignment(StrEnum):
    """Position of several recordings on one time axis."""

    TIME = "time"
    """By their time stamps: samples of one instant are played at one instant."""
    START = "start"
    """By their beginnings: each later one is moved to the beginning of the first."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `time` or `start`; raises Invalid for anything else."""
        try:
            return cls(text)
        except ValueError as exc:
            raise Invalid(
                f"alignment {text!r} is not known", hint=f"one of {', '.join(cls)}"
            ) from exc


@dataclass(frozen=True, slots=True)
class RecordedTrack:
    """One stream of a recording on the common time axis.

    shift_ns: is added to its time stamps.  inputs: places of its signals that are variables of the
    machine; labels: places of those that are labels.
    """

    recording: OpenRecording
    stream: RecordedStream
    shift_ns: int
    inputs: tuple[int, ...]
    labels: tuple[int, ...]

    @property
    def signals(self) -> tuple[Signal, ...]:
        """The signals that are variables of the machine."""
        spec = self.stream.stream_spec()
        return tuple(spec.signals[at] for at in self.inputs)

    def samples(self, place: int, from_ns: int | None, to_ns: int | None) -> Iterator[_Sampled]:
        """Yield its rows between two instants of the common axis."""
        bounds = (None if ns is None else ns - self.shift_ns for ns in (from_ns, to_ns))
        rows = parquet.read_rows(self.recording.path, self.stream, *bounds)
        return ((ns + self.shift_ns, place, values, quality) for ns, values, quality in rows)


class RecordedSource:
    """A `RowSource` of recordings: the signals of all their streams, one after another."""

    def __init__(
        self,
        tracks: Sequence[RecordedTrack],
        *,
        from_ns: int | None = None,
        to_ns: int | None = None,
    ) -> None:
        """from_ns, to_ns: part of the common time axis, the first included and the second not."""
        self._tracks = tuple(tracks)
        self._from_ns, self._to_ns = from_ns, to_ns
        self.signals = tuple(signal for track in self._tracks for signal in track.signals)

    @property
    def objects(self) -> tuple[ObjectNode, ...]:
        """An object for each stream with signals, of the stream's id; `rig-2` is a second `rig`."""
        counts: Counter[str] = Counter()
        objects: list[ObjectNode] = []
        for track in self._tracks:
            name = track.stream.address.stream
            counts[name] += 1
            if track.signals:
                number = counts[name]
                label = name if number == 1 else f"{name}-{number}"
                objects.append(ObjectNode(label, track.signals))
        return tuple(objects)

    def rows(self) -> Iterator[SourceRow]:
        """Yield the rows of all tracks in the order of the common time axis."""
        tracks = [
            track.samples(place, self._from_ns, self._to_ns)
            for place, track in enumerate(self._tracks)
        ]
        labels = _Labels()
        for time_ns, samples in groupby(heapq.merge(*tracks), key=lambda each: each[0]):
            row = self._row(time_ns, tuple(samples), labels)
            if any(code != NO_SAMPLE for code in row.quality):
                yield row

    def _row(self, time_ns: int, samples: Sequence[_Sampled], labels: "_Labels") -> SourceRow:
        """The row of an instant; its labels are taken in first, whichever track has them."""
        by_place = {place: (values, quality) for _, place, values, quality in samples}
        cells: list[SourceValue] = []
        codes: list[int] = []
        for place, track in enumerate(self._tracks):
            if place not in by_place:
                cells += [None] * len(track.inputs)
                codes += [NO_SAMPLE] * len(track.inputs)
                continue
            values, quality = by_place[place]
            cells += [values[at] for at in track.inputs]
            codes += [quality[at] for at in track.inputs]
            for at in track.labels:
                if quality[at] != NO_SAMPLE:
                    labels.take(place, at, values[at])
        return SourceRow(time_ns, tuple(cells), labels.anomaly, labels.cause, tuple(codes))


class _Labels:
    """The labels that hold at an instant: each from its time stamp until its next one."""

    def __init__(self) -> None:
        self._values: dict[tuple[int, int], SourceValue] = {}

    def take(self, place: int, at: int, value: SourceValue) -> None:
        """Take in a new value of a label."""
        self._values[place, at] = value

    @property
    def anomaly(self) -> bool | None:
        """Whether any label that is a number or a truth value is set; None before the first."""
        flags = [
            bool(value)
            for value in self._values.values()
            if value is not None and not isinstance(value, str)
        ]
        return any(flags) if flags else None

    @property
    def cause(self) -> str:
        """The texts of the labels, joined by `+`, where the row is anomalous."""
        if not self.anomaly:
            return ""
        texts = [value for value in self._values.values() if isinstance(value, str) and value]
        return "+".join(texts) or LABELLED


def source(
    recordings: Sequence[OpenRecording],
    *,
    alignment: Alignment = Alignment.TIME,
    from_ns: int | None = None,
    to_ns: int | None = None,
) -> RecordedSource:
    """The source of recordings that share one clock.

    from_ns, to_ns: part that is played, on the time axis of the first recording.  Raises Invalid if
    no stream of them has a signal that is no label, or if nothing lies in that part.
    """
    begin_ns = ns_of(recordings[0].manifest.from_)
    tracks: list[RecordedTrack] = []
    for recording in recordings:
        own_ns = ns_of(recording.manifest.from_)
        shift_ns = begin_ns - own_ns if alignment is Alignment.START else 0
        for stream in recording.manifest.streams:
            labels = recording.manifest.label_names(stream.address)
            is_label = [signal.name in labels for signal in stream.signals]
            places = range(len(is_label))
            inputs = tuple(at for at in places if not is_label[at])
            label_places = tuple(at for at in places if is_label[at])
            tracks.append(RecordedTrack(recording, stream, shift_ns, inputs, label_places))
    playable = RecordedSource(tracks, from_ns=from_ns, to_ns=to_ns)
    if not playable.signals:
        raise Invalid(
            f"{recordings[0].path} has labels alone",
            hint="record the stream that they are labels of too, with --stream",
        )
    if next(playable.rows(), None) is None:
        raise Invalid(_nothing(recordings, from_ns, to_ns), hint="choose another --from or --to")
    return playable


def _nothing(recordings: Sequence[OpenRecording], from_ns: int | None, to_ns: int | None) -> str:
    names = ", ".join(str(each.path) for each in recordings)
    span = [
        f"{word} {text_of(ns)}" for word, ns in (("from", from_ns), ("to", to_ns)) if ns is not None
    ]
    first = recordings[0].manifest
    return f"no sample of {names} lies {' '.join(span)}: it goes from {first.from_} to {first.to}"
