"""Writes a labelled dataset of a simulated pump rig.

python simulate_dataset.py set-1

It is a recording as `testbed recording create --label … --split 70/15/15` makes one of your
machine, for those who have none: three hours, a row a second, and a random fault about every two
minutes.
"""

import sys
from pathlib import Path

import numpy as np

from broker.batch import GOOD, NUMPY, Series, Source
from broker.clock import NS_PER_S, ns_of
from broker.namespace import StreamAddress
from broker.recordings import bundle, splits
from broker.recordings.bundle import RecordingFacts
from broker.recordings.manifest import LabelSignal, RecordingCreator
from broker.streams import Dtype, Signal, StreamSpec
from simulators import catalogue

BEGIN_NS = ns_of("2026-01-01T00:00:00Z")
ROWS = 3 * 3_600
RIG = StreamAddress("factory", "pump-rig", "rig")
TRUTH = StreamAddress("factory", "pump-rig", "truth")
LABEL = Signal("anomaly", Dtype.BOOL, description="whether anything is wrong with it")


def main(folder: Path) -> None:
    model = catalogue.model("pump-rig").make(seed=1, period_s=1.0, count=ROWS, fault_every_s=120.0)
    rows = list(model.rows())
    times = np.array([row.time_ns for row in rows]) + BEGIN_NS
    end_ns = BEGIN_NS + ROWS * NS_PER_S
    facts = RecordingFacts(
        name=folder.name,
        space="live",
        from_ns=BEGIN_NS,
        to_ns=end_ns,
        created_ns=end_ns,
        creator=RecordingCreator(principal="simulate_dataset.py", organisation="factory"),
        software={},
        labels=(LabelSignal(stream=str(TRUTH), signal=LABEL.name),),
        splits=splits.parse("70/15/15", BEGIN_NS, end_ns),
    )

    def series(signal: Signal, values: list) -> Series:
        column = np.array(values, NUMPY[signal.dtype])
        return Series(times, column, np.full(len(times), GOOD, np.uint8))

    with bundle.create(folder, facts) as recording:
        with recording.stream(StreamSpec(RIG, model.signals), Source.SIMULATED) as table:
            columns = zip(*(row.values for row in rows), strict=True)
            signals = zip(model.signals, columns, strict=True)
            table.append({signal.name: series(signal, values) for signal, values in signals})
        with recording.stream(StreamSpec(TRUTH, (LABEL,)), Source.SIMULATED) as table:
            table.append({LABEL.name: series(LABEL, [row.anomaly for row in rows])})
    print(
        f"wrote {folder}: {ROWS:,} rows, {sum(map(bool, (r.anomaly for r in rows))):,} with a fault"
    )


main(Path(sys.argv[1]))
