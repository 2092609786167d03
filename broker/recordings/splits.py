"""Train, validation and test part of a recording, cut by time.  Pure.

A split by time, not by chance: neighbouring samples of a machine are nearly equal, so that rows
drawn by chance would put the answers of the test into the training.
"""

from collections.abc import Sequence
from itertools import pairwise

from broker.errors import Invalid
from broker.recordings.manifest import DataSplit

NAMES = ("train", "validation", "test")
_HINT = "write train/validation/test in percent, such as 70/15/15"


def parse(text: str, from_ns: int, to_ns: int) -> tuple[DataSplit, ...]:
    """The parts of a span: `70/15/15`, in percent of its time and in that order; raises Invalid.

    A part of 0 is left out, so that 80/0/20 has no validation part.
    """
    try:
        percents = [float(each) for each in text.split("/")]
    except ValueError:
        percents = []
    if len(percents) != len(NAMES) or min(percents) < 0 or not abs(sum(percents) - 100) < 1e-9:
        raise Invalid(f"split {text[:40]!r} is not three parts that are 100 % together", hint=_HINT)
    ends = [from_ns + round((to_ns - from_ns) * sum(percents[:at]) / 100) for at in range(4)]
    ends[-1] = to_ns
    spans = zip(NAMES, pairwise(ends), strict=True)
    return tuple(DataSplit.of(name, *span) for name, span in spans if span[0] < span[1])


def case_sql(splits: Sequence[DataSplit], time: str) -> str:
    """An expression of SQL: the name of the part that a time in ns lies in.

    time: a column of whole numbers.
    """
    whens = " ".join(f"WHEN {time} < {split.to_ns} THEN '{split.name}'" for split in splits[:-1])
    last = f"'{splits[-1].name}'"
    return f"CASE {whens} ELSE {last} END" if whens else last
