"""The start of a gateway: its registration, and what its spool lacks of the ledger.

The ledger tells a spool that is new, replaced or an older copy: the recorder holds batches that the
file does not know.  What the file lacks begins where the ledger is complete, and is a gap until the
first new sample.  A gateway that knows its specs, and whose file was compared with the ledger
before, starts without the API, and compares again once the API is back.
"""

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from broker.streams import StreamSpec
from gateway.spool.spool import Spool
from gateway.state import registered_specs
from gateway.uplink.admission import Admission, Registration

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayStart:
    """The state in which a gateway starts.

    specs: of the mapping's streams, under their versions.  lost: those of which the spool lacks
    batches.  is_registered: False while the API is away.  alarm: that batches are lacking, empty
    for none.
    """

    specs: Sequence[StreamSpec]
    lost: Collection[str]
    is_registered: bool
    alarm: str = ""


async def begin(admission: Admission, spool: Spool, specs_file: Path) -> GatewayStart:
    """Register, and compare the spool with the ledger; waits for the API only if it has to.

    specs_file: of the specs as registered.  Raises Refused where the API refuses the gateway.
    """
    proposals = [stream.spec for stream in admission.mapping.streams]
    known = await asyncio.to_thread(registered_specs.stored, specs_file, proposals)
    if known is not None and await spool.has_compared(_names(known)):
        registration = await admission.register_soon()
        if registration is None:
            return GatewayStart(specs=known, lost=await spool.lost(), is_registered=False)
    else:
        reason = "its spool is new" if known is not None else "its specs are new"
        log.info("gateway reads once it is registered", reason=reason)
        registration = await admission.register()
    alarm = await _compare(registration, spool, specs_file)
    return GatewayStart(
        specs=registration.specs, lost=await spool.lost(), is_registered=True, alarm=alarm
    )


async def complete(admission: Admission, spool: Spool, specs_file: Path) -> str:
    """Register a gateway that started without the API; returns an alarm as `GatewayStart` has it.

    Waits for the API.  Raises Refused where it refuses the gateway.
    """
    registration = await admission.register()
    alarm = await _compare(registration, spool, specs_file)
    log.info("gateway was registered", streams=len(registration.specs))
    return alarm


async def _compare(registration: Registration, spool: Spool, specs_file: Path) -> str:
    """Compare the spool with the ledger, and store the specs; returns the alarm, or nothing."""
    lacking = await spool.compare(registration.held, _names(registration.specs))
    await asyncio.to_thread(registered_specs.store, specs_file, registration.specs)
    if not lacking:
        return ""
    sentence = (
        f"the testbed holds batches of {len(lacking)} streams that the spool does not know: its"
        " file is new, or an older copy; what came after them and was not stored is a gap"
    )
    log.error("spool lacks batches", streams=len(lacking), first=min(lacking))
    return sentence


def _names(specs: Sequence[StreamSpec]) -> list[str]:
    return [str(spec.address) for spec in specs]
