"""The fingerprint of the samples in a store."""

import hashlib
import struct

import numpy as np

from broker.batch import BAD, GOOD, NO_VALUE, UNCERTAIN, Long
from broker.streams import Dtype
from testbed_api.retention.fingerprint import Fingerprint

DTYPES = {"f": Dtype.FLOAT64, "i": Dtype.INT64, "b": Dtype.BOOL, "s": Dtype.STRING}
ROWS = [
    (1, "f", 1.5, GOOD),
    (1, "s", "ü", UNCERTAIN),
    (2, "f", NO_VALUE[Dtype.FLOAT64], BAD),
    (2, "i", -(2**63), GOOD),
    (3, "b", True, GOOD),
    (3, "f", -0.0, GOOD),
]


def frame(rows, names=("f", "i", "b", "s")):
    values = np.empty(len(rows), np.object_)
    values[:] = [value for _, _, value, _ in rows]
    return Long(
        np.array([time for time, *_ in rows], np.int64),
        np.array([names.index(name) for _, name, *_ in rows], np.int32),
        values,
        np.array([code for *_, code in rows], np.uint8),
        names,
        tuple(DTYPES[name] for name in names),
    )


def fingerprint_of(*frames):
    result = Fingerprint()
    for part in frames:
        result.add(part)
    return result


def test_it_is_what_its_description_says():
    sums = {
        "b": struct.pack("<qBB", 3, GOOD, 1),
        "f": struct.pack("<qBd", 1, GOOD, 1.5)
        + struct.pack("<qBd", 2, BAD, 0.0)
        + struct.pack("<qBd", 3, GOOD, -0.0),
        "i": struct.pack("<qBq", 2, GOOD, -(2**63)),
        "s": struct.pack("<qBI", 1, UNCERTAIN, 2) + "ü".encode(),
    }
    counts = {"b": 1, "f": 3, "i": 1, "s": 1}
    lines = "".join(
        f"{name}\t{DTYPES[name]}\t{counts[name]}\t{hashlib.sha256(sums[name]).hexdigest()}\n"
        for name in sorted(sums)
    )
    result = fingerprint_of(frame(ROWS))
    assert result.sha256 == hashlib.sha256(lines.encode()).hexdigest()
    assert (result.count, result.signals) == (6, counts)
    assert (result.first_ns, result.last_ns) == (1, 3)


def test_it_does_not_depend_on_frames_nor_on_the_order_of_signals():
    by_signal = sorted(ROWS, key=lambda row: (row[1], row[0]))
    pieces = [frame([row], ("s", "b", "i", "f")) for row in by_signal]
    assert fingerprint_of(*pieces).sha256 == fingerprint_of(frame(ROWS)).sha256


def test_any_change_of_a_sample_changes_it():
    whole = fingerprint_of(frame(ROWS)).sha256
    for at, (time, name, value, code) in enumerate(ROWS):
        others = [ROWS[:at] + ROWS[at + 1 :]]
        others.append([*ROWS[:at], (time + 1, name, value, code), *ROWS[at + 1 :]])
        if code != BAD:
            others.append([*ROWS[:at], (time, name, value, 1 - code), *ROWS[at + 1 :]])
        for rows in others:
            assert fingerprint_of(frame(sorted(rows, key=lambda row: row[0]))).sha256 != whole


def test_of_nothing_there_is_one_too():
    assert (
        fingerprint_of().sha256
        == fingerprint_of(frame([])).sha256
        == hashlib.sha256(b"").hexdigest()
    )
