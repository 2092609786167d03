"""Labels of rows by time stamp, of a machine's ledger and of a prototype's output.  Pure."""

import numpy as np

from broker.batch import BAD
from simulators.ledger import LedgerContent
from simulators.model import SourceRow
from simulators.replay import LABELLED
from testbed.demo.outcome import COMPARABLE
from testbed.demo.plan import ANOMALY
from testbed_sdk import History


def of_rows(offered: LedgerContent) -> dict[int, bool]:
    """Whether a row has a fault, by its time stamp in the store, for the rows that say so."""
    rows = _by_time(offered)
    return {time_ns: row.anomaly for time_ns, row in rows.items() if row.anomaly is not None}


def kinds_of_rows(offered: LedgerContent) -> dict[int, tuple[str, ...]]:
    """The kinds of fault of the rows with one, by their time stamps; none for a recording's."""
    return {
        time_ns: tuple(row.cause.split("+"))
        for time_ns, row in _by_time(offered).items()
        if row.anomaly and row.cause != LABELLED
    }


def _by_time(offered: LedgerContent) -> dict[int, SourceRow]:
    """The rows by their time stamps in the store."""
    rows: dict[int, SourceRow] = {}
    for row in offered.rows:
        time_ns = row.time_ns
        while time_ns in rows:  # as the gateway stores a second row of one time
            time_ns += 1
        rows[time_ns] = row
    return rows


def of_output(output: History) -> dict[int, bool]:
    """Whether a prototype alarmed, by time stamp, empty without labels that can be compared."""
    if ANOMALY not in output.series or output.spec.signal(ANOMALY).type not in COMPARABLE:
        return {}
    flags = output[ANOMALY]
    usable = flags.quality != BAD
    values = flags.values[usable].astype(np.bool_)
    return dict(zip(flags.time_ns[usable].tolist(), values.tolist(), strict=True))
