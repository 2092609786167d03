"""Authorization of connections to NATS: principals of the registry, and parts of the testbed.

Requests are answered from rights in memory that are never older than the request, many at a time.
What follows from an admission, its audit entry and the use of its token, is written beside.
"""

from collections.abc import Callable, Mapping

import structlog

from broker import policy
from broker.backends.nats import auth_callout
from broker.backends.nats.auth_callout import ConnectRequest, Permissions
from broker.clock import ForwardClock, text_of
from broker.credential import Credential
from broker.errors import Unavailable
from broker.process_identity import RunningProcess
from broker.rights import Principal, PrincipalKind, Rights
from testbed_api.broker_auth.process_admission import ProcessAdmission, ProcessVerdict
from testbed_api.broker_auth.refusals import BusJournal
from testbed_api.broker_auth.sessions import ConnectAdmission
from testbed_api.domain import bus_refusals, tokens
from testbed_api.domain.audit import AuditContext, AuditEntry
from testbed_api.domain.bus_refusals import BusAct, BusRefusal
from testbed_api.domain.errors import TooMany
from testbed_api.limits.quotas import Quotas
from testbed_api.registry.registry import Registry
from testbed_api.registry.rights_cache import RightsCache

SYSTEM, PUBLISHER, OTHER = 0, 1, 2
"""Places of those who wait for an answer: parts of the testbed, then gateways, then all others."""

log = structlog.get_logger()


def _unnoted(_admission: ConnectAdmission) -> None:
    """Do nothing: no access log is kept."""


class Authorizer:
    """Answers the auth callout of the broker."""

    def __init__(  # noqa: PLR0913 - its collaborators
        self,
        *,
        registry: Registry,
        rights: RightsCache,
        clock: ForwardClock,
        system: Mapping[str, Credential],
        quotas: Quotas,
        journal: BusJournal,
        admitted: Callable[[ConnectAdmission], None] = _unnoted,
        processes: ProcessAdmission | None = None,
    ) -> None:
        """system: credentials of the testbed's own parts by principal, made anew at each start and
        never stored.  quotas: how many connections an organisation may have.  journal: counts the
        connections that are not admitted.  admitted: is called with each that is let in, but those
        of the system; must not block.  processes: decides where one process at a time has a role;
        None where all are admitted.
        """
        self._registry = registry
        self._rights = rights
        self._clock = clock
        self._quotas = quotas
        self._journal = journal
        self._admitted = admitted
        self._processes = processes
        self._system = {
            name: tokens.hashed(credential.secret) for name, credential in system.items()
        }

    def rank(self, request: ConnectRequest) -> int:
        """The place of a request among those that wait, by the name that it gives: no right."""
        if request.principal in self._system:
            return SYSTEM
        return PUBLISHER if self._rights.is_publisher(request.principal) else OTHER

    async def answer(self, request: ConnectRequest) -> Permissions | None:
        """The permissions of a connection; None refuses it, also while the registry is away."""
        if not auth_callout.is_bound(request):
            self._refused(request, bus_refusals.OTHERS_CLIENT_ID)
            return None
        secret_hash = tokens.hashed(request.secret)
        if request.principal in self._system:
            part = Principal(request.principal, "", PrincipalKind.SYSTEM)
            right = self._system[request.principal] == secret_hash
            if not right:
                self._refused(request, bus_refusals.NO_PART)
            return self._permissions(Rights(principals=(part,)), part.id, None) if right else None
        try:
            admission = await self._known(request, secret_hash)
        except Unavailable as exc:
            log.warning(
                "connection could not be judged", principal=request.principal[:60], reason=str(exc)
            )
            return None
        if admission is None:
            return None
        self._admitted(admission)
        return admission.permissions

    async def _known(self, request: ConnectRequest, secret_hash: str) -> ConnectAdmission | None:
        principal = request.principal
        current = await self._rights.current({principal})
        now_ns = self._clock.now_ns()
        held = current[principal].under(secret_hash, now_ns) if principal in current else None
        if held is None:
            self._refused(request, bus_refusals.WRONG_CREDENTIAL)
            return None
        token, rights = held
        permissions = self._permissions(rights, principal, token.span.until_ns)
        known = rights.principal(principal, now_ns)
        if permissions is None or known is None:
            self._refused(request, bus_refusals.NO_ROLE)
            return None
        if not await self._is_room(known.organisation, now_ns):
            self._refused(request, bus_refusals.CROWDED)
            return None
        verdict = await self._judge_process(request)
        if verdict.excluded_by is not None:
            runs = _sentence_part(verdict.excluded_by)
            self._refused(request, bus_refusals.RUNS_ELSEWHERE, runs=runs)
            return None
        self._quotas.entered(known.organisation)
        context = _context(request).by(known.id, known.organisation)
        if verdict.replaced:
            context.entry.facts["replaced"] = "; ".join(map(_sentence_part, verdict.replaced))
        return ConnectAdmission(
            request=request,
            permissions=permissions,
            arrival=context.event(now_ns),
            token=token.id,
        )

    async def _is_room(self, organisation: str, now_ns: int) -> bool:
        async def principals() -> list[str]:
            return [
                principal.id
                for principal in await self._registry.principals.in_organisation(
                    organisation, now_ns
                )
            ]

        try:
            await self._quotas.make_room(organisation, principals)
        except TooMany:  # said and counted once there
            return False
        return True

    async def _judge_process(self, request: ConnectRequest) -> ProcessVerdict:
        if self._processes is None:
            return ProcessVerdict()
        return await self._processes.admit(request)

    def _refused(self, request: ConnectRequest, reason: str, **facts: object) -> None:
        self._journal.note(
            BusRefusal(
                act=BusAct.CONNECT,
                principal=request.principal,
                reason=reason,
                time_ns=self._clock.now_ns(),
                source=request.host,
                facts=_facts(request) | facts,
            )
        )

    def _permissions(
        self, rights: Rights, principal: str, expires_ns: int | None
    ) -> Permissions | None:
        """The topics of a principal, until the first of its rights or its token ends.

        The broker ends the connection by the machine's clock.
        """
        now_ns = self._clock.now_ns()
        who = rights.principal(principal, now_ns)
        if who is None:
            return None
        ends = (expires_ns, policy.until_ns(rights, principal, now_ns))
        until_ns = min((end for end in ends if end is not None), default=None)
        if until_ns is not None:
            until_ns -= self._clock.ahead_ns()
        topics = policy.topics(rights, principal, now_ns)
        durable = who.kind is PrincipalKind.SYSTEM
        return Permissions(topics.publish, topics.subscribe, until_ns, durable)


def _context(request: ConnectRequest) -> AuditContext:
    """The audit context of a connection by the principal that it claims to be."""
    return AuditContext(
        action=BusAct.CONNECT,
        target=bus_refusals.BROKER,
        principal=request.principal,
        source=request.host,
        entry=AuditEntry(_facts(request)),
    )


def _facts(request: ConnectRequest) -> dict[str, object]:
    return {"client_id": request.client_id, "connection": request.connection}


def _sentence_part(process: RunningProcess) -> str:
    since = text_of(process.since_ns)
    return f"on {process.identity.host}, from {process.address}, since {since}"
