"""`testbed gateway run`: one gateway with its state beside its mapping file."""

from pathlib import Path

from broker.clock import Clock
from broker.settings import BusSettings
from gateway import identity, service, state
from gateway.mapping import file as mapping_file
from gateway.settings import GatewaySettings, SourceSettings
from gateway.state import StateFolders
from testbed.terminal.options import settings


async def run(file: Path, clock: Clock) -> None:
    """Run the gateway of a mapping file until cancelled."""
    mapping = mapping_file.load(file)
    own = settings(GatewaySettings)
    folders = _folders(file)
    await service.run(
        mapping,
        folders,
        settings=own,
        bus_settings=identity.with_stored_credential(
            settings(BusSettings), folders.identity_of(mapping.equipment), mapping.equipment
        ),
        clock=clock,
    )


async def identity_folder(file: Path | None) -> Path:
    """The folder where a new identity goes: of a mapping file's equipment, or of all here.

    file: mapping file, None for the identity below the current folder.
    """
    if file is None:
        return _folders(None).identity
    return _folders(file).own_identity(mapping_file.load(file).equipment)


def _folders(file: Path | None) -> StateFolders:
    return state.folders(settings(GatewaySettings), settings(SourceSettings), mapping=file)
