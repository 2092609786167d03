"""Build OPC UA's standard nodes once a process; asyncua's servers in tests take copies of them.

asyncua builds its 6,000 standard nodes for each server, which takes two seconds of a processor.
"""

import asyncio
import copy
import functools
from collections.abc import Iterator, Mapping, MutableMapping
from pathlib import Path

from asyncua import ua
from asyncua.server.address_space import AddressSpace, NodeData, NodeManagementService
from asyncua.server.internal_server import InternalServer
from asyncua.server.standard_address_space import standard_address_space

Nodes = Mapping[ua.NodeId, NodeData]


class QuickServer(InternalServer):
    """The inside of a server, as `Server(iserver=…)` takes it, that copies its standard nodes."""

    async def load_standard_address_space(self, shelf_file: Path | None = None) -> None:  # noqa: ARG002
        """As asyncua calls it when the server is initialised."""
        self.aspace._nodes = _Copies(await asyncio.to_thread(_standard_nodes))


@functools.cache
def _standard_nodes() -> Nodes:
    space = AddressSpace()
    standard_address_space.fill_address_space(NodeManagementService(space))
    return space._nodes


class _Copies(MutableMapping[ua.NodeId, NodeData]):
    """Nodes of one server: its own, and a copy of each standard node that it has ever looked at.

    Iterates over these alone, as asyncua's own lazy mapping does: a standard node that was never
    looked at has no reference to another node but standard ones.
    """

    def __init__(self, standard: Nodes) -> None:
        self._standard = standard
        self._own: dict[ua.NodeId, NodeData] = {}

    def __getitem__(self, key: ua.NodeId) -> NodeData:
        if key not in self._own:
            self._own[key] = copy.deepcopy(self._standard[key])
        return self._own[key]

    def __setitem__(self, key: ua.NodeId, value: NodeData) -> None:
        self._own[key] = value

    def __delitem__(self, key: ua.NodeId) -> None:
        del self._own[key]

    def __contains__(self, key: object) -> bool:
        return key in self._own or key in self._standard

    def __iter__(self) -> Iterator[ua.NodeId]:
        return iter(list(self._own))

    def __len__(self) -> int:
        return len(self._own)
