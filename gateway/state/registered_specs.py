"""The specs of a gateway's streams as the testbed registered them, for a start without its API."""

from collections.abc import Sequence
from pathlib import Path

import structlog

from broker import messages
from broker.errors import Corrupt
from broker.process import files
from broker.streams import StreamSpec

log = structlog.get_logger()


def store(file: Path, specs: Sequence[StreamSpec]) -> None:
    """Write specs with their versions, one a line; a disk error is logged.

    Without the file the next start waits for the API, and no sample is lost that was read.
    """
    try:
        files.replace(file, b"".join(messages.encode_spec(spec) + b"\n" for spec in specs))
    except OSError as exc:
        log.warning("registered specs were not stored", file=str(file), reason=str(exc))


def stored(file: Path, proposals: Sequence[StreamSpec]) -> list[StreamSpec] | None:
    """The registered versions of a mapping's specs; None if one was never registered as it is."""
    try:
        lines = file.read_bytes().splitlines()
        registered = {spec.address: spec for spec in map(messages.decode_spec, lines)}
    except FileNotFoundError:
        return None
    except (OSError, Corrupt) as exc:
        log.warning("registered specs were not read", file=str(file), reason=str(exc))
        return None
    specs = []
    for proposal in proposals:
        spec = registered.get(proposal.address)
        if spec is None or proposal.numbered(spec.version) != spec:
            return None
        specs.append(spec)
    return specs
