"""The registry's queries, the same on SQLite and PostgreSQL."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self

from broker.clock import Clock
from testbed_api.domain.audit import Act
from testbed_api.registry.access_log import UseQueries
from testbed_api.registry.audit import AuditQueries
from testbed_api.registry.enrolments import EnrolmentQueries
from testbed_api.registry.equipment import EquipmentQueries
from testbed_api.registry.grants import SharingQueries
from testbed_api.registry.organisations import PartyQueries
from testbed_api.registry.rights import RightsQueries
from testbed_api.registry.rights_snapshot import ProjectionQueries
from testbed_api.registry.tokens import TokenQueries


class Registry(
    EquipmentQueries,
    PartyQueries,
    TokenQueries,
    SharingQueries,
    EnrolmentQueries,
    UseQueries,
    RightsQueries,
    ProjectionQueries,
    AuditQueries,
):
    """Who there is, what they have, and what was agreed; each noun has a file of its own.

    Raises Unavailable where SQL is away.
    """

    @asynccontextmanager
    async def change(self) -> AsyncIterator[Self]:
        """The same registry inside one transaction: all that is done with it happens, or nothing.

        Nobody else writes meanwhile, so what is read there stays true to the end.
        """
        async with self._transaction(write=True) as sql:
            yield type(self)(self._engine, sql, self._act)

    def doing(self, act: Act, clock: Clock) -> Self:
        """The same registry for somebody's act: what it changes tells of it."""
        return type(self)(self._engine, self._sql, (act, clock))
