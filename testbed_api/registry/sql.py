"""The registry's queries, the same on SQLite and PostgreSQL."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self

from testbed_api.registry.engine import transaction
from testbed_api.registry.enrolments import EnrolmentQueries
from testbed_api.registry.equipment import EquipmentQueries
from testbed_api.registry.parties import PartyQueries
from testbed_api.registry.projecting import ProjectionQueries
from testbed_api.registry.rights import RightsQueries
from testbed_api.registry.sharing import SharingQueries
from testbed_api.registry.tokens import TokenQueries
from testbed_api.registry.using import UseQueries


class Registry(
    EquipmentQueries,
    PartyQueries,
    TokenQueries,
    SharingQueries,
    EnrolmentQueries,
    UseQueries,
    RightsQueries,
    ProjectionQueries,
):
    """Who there is, what they have, and what was agreed; each noun has a file of its own.

    Raises Unavailable where SQL is away.
    """

    @asynccontextmanager
    async def change(self) -> AsyncIterator[Self]:
        """The same registry inside one transaction: all that is done with it happens, or nothing.

        Nobody else writes meanwhile, so what is read there stays true to the end.
        """
        async with transaction(self._engine, write=True) as sql:
            yield type(self)(self._engine, sql)
