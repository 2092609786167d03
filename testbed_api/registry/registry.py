"""The registry: one repository for each noun, over one session."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy.ext.asyncio import AsyncConnection

from broker.clock import Clock
from testbed_api.domain.audit import AuditContext, AuditEntry
from testbed_api.registry import audit_chain, request_keys
from testbed_api.registry.access_log import ReadRepository, SessionRepository
from testbed_api.registry.audit import AuditRepository
from testbed_api.registry.base import RegistrySession
from testbed_api.registry.deployment_logs import DeploymentLogRepository
from testbed_api.registry.deployments import DeploymentRepository
from testbed_api.registry.emails import EmailRepository
from testbed_api.registry.engine import SqlEngine, transaction
from testbed_api.registry.enrolments import EnrolmentRepository
from testbed_api.registry.equipment import EquipmentRepository
from testbed_api.registry.grants import GrantRepository
from testbed_api.registry.images import ImageRepository
from testbed_api.registry.listings import ListingRepository
from testbed_api.registry.notices import NoticeRepository
from testbed_api.registry.organisations import OrganisationRepository
from testbed_api.registry.passwords import PasswordRepository
from testbed_api.registry.pauses import PauseRepository
from testbed_api.registry.principals import PrincipalRepository
from testbed_api.registry.recordings import RecordingRepository
from testbed_api.registry.request_keys import RequestKeyRepository
from testbed_api.registry.rights import RightsRepository
from testbed_api.registry.rights_snapshot import RightsSnapshotRepository
from testbed_api.registry.runners import RunnerRepository
from testbed_api.registry.runs import RunRepository
from testbed_api.registry.secrets import SecretRepository
from testbed_api.registry.streams import StreamRepository
from testbed_api.registry.tokens import TokenRepository


class Registry:
    """The repositories of organisations, principals, equipment, grants and audit, over one session.

    The same on SQLite and PostgreSQL.  Raises Unavailable where SQL is away.
    """

    def __init__(
        self,
        engine: SqlEngine,
        sql: AsyncConnection | None = None,
        entry: AuditEntry | None = None,
        *,
        is_audited: bool = False,
    ) -> None:
        """engine: migrated, see `registry.engine`.  sql: an open transaction for all calls.

        entry: collects what the change in `sql` notes for the audit.  is_audited: changes are made
        inside `change` alone, so that none is without an audit entry.
        """
        session = RegistrySession(engine, sql, entry, is_audited=is_audited)
        self._engine = engine
        self.organisations = OrganisationRepository(session)
        self.principals = PrincipalRepository(session)
        self.tokens = TokenRepository(session)
        self.passwords = PasswordRepository(session)
        self.emails = EmailRepository(session)
        self.notices = NoticeRepository(session)
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
        self.recordings = RecordingRepository(session)
        self.request_keys = RequestKeyRepository(session)
        self.runs = RunRepository(session)
        self.runners = RunnerRepository(session)
        self.images = ImageRepository(session)
        self.secrets = SecretRepository(session)
        self.deployments = DeploymentRepository(session)
        self.deployment_logs = DeploymentLogRepository(session)
        self.audit = AuditRepository(session)

    @asynccontextmanager
    async def change(self, context: AuditContext, clock: Clock) -> AsyncIterator["Registry"]:
        """The registry inside one transaction, to whose end the audit entry of `context` is added:
        all that is done with it happens and is in the audit, or nothing of it.

        No other process writes meanwhile, so what is read there stays true to the end.  A second
        change of the same act adds no second entry.  Raises Taken if the idempotency key of
        `context` was claimed by an earlier request.
        """
        entry = context.entry
        async with transaction(self._engine.registry, write=True) as sql:
            if context.key is not None and not entry.is_written:
                await request_keys.claim(sql, context.key, context.request, clock.now_ns())
            yield Registry(self._engine, sql, entry)
            if not entry.is_written:
                await audit_chain.append(sql, [context.event(clock.now_ns())])
        entry.is_written = True

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator["Registry"]:
        """Open a read-only transaction: all that is read in it was true at one moment."""
        async with transaction(self._engine.registry) as sql:
            yield Registry(self._engine, sql)

    @asynccontextmanager
    async def unaudited_change(self) -> AsyncIterator["Registry"]:
        """Open a transaction without an audit entry: for the first start, and for reports."""
        async with transaction(self._engine.registry, write=True) as sql:
            yield Registry(self._engine, sql)
