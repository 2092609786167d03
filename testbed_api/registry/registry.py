"""The registry: one repository for each noun, over one session."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from broker.clock import Clock
from testbed_api.domain.audit import Act
from testbed_api.registry.access_log import ReadRepository, SessionRepository
from testbed_api.registry.audit import AuditRepository
from testbed_api.registry.base import RegistrySession
from testbed_api.registry.enrolments import EnrolmentRepository
from testbed_api.registry.equipment import EquipmentRepository
from testbed_api.registry.grants import GrantRepository
from testbed_api.registry.listings import ListingRepository
from testbed_api.registry.organisations import OrganisationRepository
from testbed_api.registry.passwords import PasswordRepository
from testbed_api.registry.pauses import PauseRepository
from testbed_api.registry.principals import PrincipalRepository
from testbed_api.registry.rights import RightsRepository
from testbed_api.registry.rights_snapshot import RightsSnapshotRepository
from testbed_api.registry.streams import StreamRepository
from testbed_api.registry.tokens import TokenRepository


class Registry:
    """Organisations with their people and machines, what they own, and what was agreed.

    The same on SQLite and PostgreSQL.  Raises Unavailable where SQL is away.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        sql: AsyncConnection | None = None,
        act: tuple[Act, Clock] | None = None,
    ) -> None:
        """engine: migrated, see `registry.engine`.  sql: an open transaction for all calls."""
        session = self._session = RegistrySession(engine, sql, act)
        self.organisations = OrganisationRepository(session)
        self.principals = PrincipalRepository(session)
        self.tokens = TokenRepository(session)
        self.passwords = PasswordRepository(session)
        self.enrolments = EnrolmentRepository(session)
        self.equipment = EquipmentRepository(session)
        self.streams = StreamRepository(session)
        self.listings = ListingRepository(session)
        self.grants = GrantRepository(session)
        self.pauses = PauseRepository(session)
        self.rights = RightsRepository(session)
        self.rights_snapshot = RightsSnapshotRepository(session)
        self.sessions = SessionRepository(session)
        self.reads = ReadRepository(session)
        self.audit = AuditRepository(session)

    @asynccontextmanager
    async def change(self) -> AsyncIterator["Registry"]:
        """The registry inside one transaction: all that is done with it happens, or nothing.

        Nobody else writes meanwhile, so what is read there stays true to the end.
        """
        session = self._session
        async with session.transaction(write=True) as sql:
            yield Registry(session.engine, sql, session.act)

    def doing(self, act: Act, clock: Clock) -> "Registry":
        """The same registry for somebody's act: what it changes tells of it."""
        return Registry(self._session.engine, self._session.sql, (act, clock))
