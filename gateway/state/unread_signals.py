"""The signals that a gateway could not read, and the end of the last gap stated for each.

They are kept in a file, because the spool knows the newest time stamp of a stream only: after a
restart the gap of such a signal begins where it ended here, not at the stream's last sample.
"""

from collections.abc import Mapping
from pathlib import Path

import orjson
import structlog

from broker.process import files

log = structlog.get_logger()

SignalName = tuple[str, str]
"""Address of a stream, and name of a signal."""


def store(file: Path, stated_ns: Mapping[SignalName, int]) -> None:
    """Write the end of the last gap of each signal; a disk error is logged.

    Without the file, gaps after a restart begin at the stream's last sample.
    """
    document = [[*name, until_ns] for name, until_ns in stated_ns.items()]
    try:
        files.replace(file, orjson.dumps(document) + b"\n")
    except OSError as exc:
        log.warning("unread signals were not stored", file=str(file), reason=str(exc))


def stored(file: Path) -> dict[SignalName, int]:
    """The end of the last gap of each signal in a file; empty if there is none, or no valid one."""
    try:
        rows = orjson.loads(file.read_bytes())
        return {(str(stream), str(signal)): int(until_ns) for stream, signal, until_ns in rows}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError) as exc:
        log.warning("unread signals were not read", file=str(file), reason=str(exc))
        return {}
