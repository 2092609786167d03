"""Recordings of a test: a stream with every dtype and quality, and the writing of one."""

from pathlib import Path

import numpy as np

from broker.batch import (
    BAD,
    GOOD,
    NO_SAMPLE,
    UNCERTAIN,
    Gap,
    Series,
    Source,
    filled_column,
)
from broker.clock import NS_PER_S, ns_of
from broker.namespace import StreamAddress
from broker.recordings import bundle, layout, parquet, splits
from broker.recordings.bundle import OpenRecording, RecordingFacts
from broker.recordings.manifest import LabelSignal, RecordedStream, RecordingCreator
from broker.streams import Dtype, Signal, StreamSpec, ValueType

T0 = ns_of("2026-11-23T12:00:00.123456789Z")
RIG = StreamAddress("factory", "pump-rig", "rig")
TRUTH = StreamAddress("factory", "pump-rig", "truth")
BIG = 2**62 + 1
SPEC = StreamSpec(
    RIG,
    (
        Signal("Volume Flow", unit="L/min"),
        Signal("volume flow", Dtype.INT64),
        Signal("time", Dtype.BOOL),
        Signal("w", Dtype.STRING),
        Signal("never"),
    ),
)
TRUTH_SPEC = StreamSpec(TRUTH, (Signal("anomaly", Dtype.BOOL), Signal("cause", Dtype.STRING)))
GAPS = (Gap(("w", "never"), T0 + 1, T0 + 5, "it's gone"), Gap((), T0, T0, "gateway-down"))


def series(dtype, *rows: tuple[int, object, int], from_ns: int = T0) -> Series:
    """Samples of (ns after the beginning, value, quality)."""
    times, values, quality = zip(*rows, strict=True)
    return Series(
        np.array(times, np.int64) + from_ns, np.array(values, dtype), np.array(quality, np.uint8)
    )


SAMPLES = {
    "Volume Flow": series(
        np.float64, (0, 1.5, GOOD), (7, np.nan, BAD), (8, 0.1 + 0.2, UNCERTAIN), (9, -0.0, GOOD)
    ),
    "volume flow": series(np.int64, (7, BIG, GOOD)),
    "time": series(np.bool_, (0, True, GOOD), (9, False, GOOD)),
    "w": series(object, (9, "it's 5 µm", GOOD), (10, "", BAD), (11, "", GOOD)),
    "never": Series(np.empty(0, np.int64), np.empty(0, np.float64), np.empty(0, np.uint8)),
}


def facts(name: str, *, from_ns: int = T0, split: str = "", **more: object) -> RecordingFacts:
    """The facts of a recording of ten seconds."""
    to_ns = from_ns + 10 * NS_PER_S
    return RecordingFacts(
        name=name,
        space="live",
        from_ns=from_ns,
        to_ns=to_ns,
        created_ns=to_ns,
        creator=RecordingCreator(principal="cora", organisation="company"),
        software={"connected-testbed": "0.1.0"},
        splits=splits.parse(split, from_ns, to_ns) if split else (),
        **more,
    )


def every_kind(path: Path, **more: object) -> OpenRecording:
    """A recording of a stream with every dtype, quality and kind of gap."""
    with (
        bundle.create(path, facts(path.name, **more)) as writer,
        writer.stream(SPEC, Source.LIVE, gaps=GAPS) as table,
    ):
        table.append(SAMPLES)
    return bundle.open_recording(path)


def read_gaps(folder: Path) -> list[tuple[StreamAddress, Gap]]:
    """The gaps of a recording; raises Corrupt."""
    gaps: dict[int, tuple[StreamAddress, Gap]] = {}
    path = folder / layout.GAPS
    with parquet.reading(path) as sql:
        rows = sql.execute(
            'SELECT gap, stream, signal, epoch_ns("from"), epoch_ns("to"), cause'
            " FROM read_parquet(?, hive_partitioning=false)",
            [str(path)],
        ).fetchall()
    for number, stream, signal, from_ns, to_ns, cause in rows:
        signals = () if signal is None else (signal,)
        before = gaps[number][1].signals if number in gaps else ()
        gap = Gap(before + signals, from_ns, to_ns, cause)
        gaps[number] = (StreamAddress.parse(stream), gap)
    return [gaps[number] for number in sorted(gaps)]


def read_series(folder: Path, stream: RecordedStream) -> dict[str, Series]:
    """The samples of each signal of a stream, as they were recorded; raises Corrupt."""
    spec, rows = stream.stream_spec(), list(parquet.read_rows(folder, stream))
    return {
        recorded.name: _series(
            spec.signal(recorded.name).type,
            [(row[0], row[1][at], row[2][at]) for row in rows if row[2][at] != NO_SAMPLE],
        )
        for at, recorded in enumerate(stream.signals)
    }


def _series(value_type: ValueType, samples: list[tuple[int, object, int]]) -> Series:
    values = filled_column(value_type, len(samples))
    for at, (_, value, _) in enumerate(samples):
        if value is not None:
            values[at] = value
    times = np.array([time_ns for time_ns, _, _ in samples], np.int64)
    return Series(times, values, np.array([quality for *_, quality in samples], np.uint8))


SPECTRUM = tuple(float(at) / 3 for at in range(16))
ARRAY_SPEC = StreamSpec(
    RIG,
    (
        Signal("spectrum", unit="mm/s", shape=(16,)),
        Signal("edges", Dtype.INT64, shape=(2,)),
        Signal("doors", Dtype.BOOL, shape=(3,)),
        Signal("Level"),
    ),
)
ARRAY_SAMPLES = {
    "spectrum": series(
        np.float64,
        (0, SPECTRUM, GOOD),
        (5, (np.nan,) * 16, BAD),
        (7, (-0.0, 5e-324, 1.7e308, *SPECTRUM[3:]), UNCERTAIN),
    ),
    "edges": series(np.int64, (5, (-(2**63), 2**63 - 1), GOOD)),
    "doors": series(np.bool_, (0, (True, False, True), GOOD)),
    "Level": series(np.float64, (0, 0.5, GOOD), (6, 0.25, GOOD)),
}


def arrays(path: Path, **more: object) -> OpenRecording:
    """A recording of arrays of every dtype beside a single number."""
    with (
        bundle.create(path, facts(path.name, **more)) as writer,
        writer.stream(ARRAY_SPEC, Source.SIMULATED) as table,
    ):
        table.append(ARRAY_SAMPLES)
    return bundle.open_recording(path)


def machine(
    path: Path, values: dict[str, list[tuple[float, float]]], *, from_ns: int = T0
) -> OpenRecording:
    """A recording of a rig whose signals have (s after the beginning, value), all good."""
    spec = StreamSpec(RIG, tuple(map(Signal, values)))
    samples = {
        name: series(
            np.float64,
            *((round(at_s * NS_PER_S), value, GOOD) for at_s, value in pairs),
            from_ns=from_ns,
        )
        for name, pairs in values.items()
    }
    with (
        bundle.create(path, facts(path.name, from_ns=from_ns)) as writer,
        writer.stream(spec, Source.LIVE) as table,
    ):
        table.append(samples)
    return bundle.open_recording(path)


def labelled(path: Path) -> OpenRecording:
    """A recording of a rig, a value a second, and of the truth about it from its second 2 on."""
    rig = StreamSpec(RIG, (Signal("Pressure", unit="bar"),))
    pressures = [(round(at * NS_PER_S), float(at), GOOD) for at in range(6)]
    flags = [(0, False, GOOD), (2 * NS_PER_S, True, GOOD), (4 * NS_PER_S, False, GOOD)]
    causes = [(0, "", GOOD), (2 * NS_PER_S, "valve", GOOD)]
    labels = tuple(LabelSignal(stream=str(TRUTH), signal=name) for name in TRUTH_SPEC.names)
    with bundle.create(path, facts(path.name, labels=labels, split="50/0/50")) as writer:
        with writer.stream(rig, Source.SIMULATED) as table:
            table.append({"Pressure": series(np.float64, *pressures)})
        with writer.stream(TRUTH_SPEC, Source.SIMULATED) as table:
            table.append({"anomaly": series(np.bool_, *flags), "cause": series(object, *causes)})
    return bundle.open_recording(path)
