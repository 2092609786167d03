"""The start of a gateway while the API of its testbed is away."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydantic import SecretStr

from broker.clock import WallClock
from broker.credential import Credential
from broker.process_identity import ProcessIdentity
from broker.settings import BusSettings
from broker.streams import StreamSpec
from gateway.mapping import file as mapping_file
from gateway.settings import GatewaySettings
from gateway.spool import spool
from gateway.spool.lives import LastHeld
from gateway.spool.spool import Spool
from gateway.state import registered_specs
from gateway.uplink import start
from gateway.uplink.admission import Admission
from gateway.uplink.start import GatewayStart
from tests.integration.test_gateway_admission import MAPPING
from tests.services import free_port

STREAM = "factory/pump-rig/rig"
AT_ONCE_S = 5.0


@dataclass(frozen=True, slots=True)
class Bed:
    """A gateway that was registered once, and whose API is away now."""

    admission: Admission
    spool: Spool
    specs: list[StreamSpec]
    specs_file: Path

    async def begun(self, within_s: float) -> GatewayStart:
        async with asyncio.timeout(within_s):
            return await start.begin(self.admission, self.spool, self.specs_file)


@asynccontextmanager
async def registered(folder: Path) -> AsyncIterator[Bed]:
    mapping = mapping_file.read(MAPPING, "m.yaml")
    specs, specs_file = [stream.spec.numbered(3) for stream in mapping.streams], folder / "specs"
    registered_specs.store(specs_file, specs)
    credential = SecretStr(Credential.make("gateway").text)
    admission = Admission(
        mapping=mapping,
        settings=GatewaySettings(api=f"http://127.0.0.1:{free_port()}"),
        bus_settings=BusSettings(credential=credential),
        clock=WallClock(),
        process=ProcessIdentity(host="here", place="0" * 12, started_ms=1),
    )
    async with spool.open(folder / "s.sqlite", epoch="one") as disk_spool:
        yield Bed(admission, disk_spool, specs, specs_file)


async def test_a_gateway_whose_file_was_compared_starts_with_the_specs_it_knows(
    tmp_path: Path,
) -> None:
    async with registered(tmp_path) as bed:
        await bed.spool.compare([LastHeld(STREAM, "other", 5, 70)], [STREAM])
        assert await bed.begun(AT_ONCE_S) == GatewayStart(
            specs=bed.specs, lost={STREAM}, is_registered=False
        )


async def test_a_gateway_with_a_new_file_waits_for_the_ledger(tmp_path: Path) -> None:
    async with registered(tmp_path) as bed:
        with pytest.raises(TimeoutError):
            await bed.begun(1.0)
