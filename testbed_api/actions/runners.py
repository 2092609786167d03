"""Acts on runners: make a code for one, enrol it, list them, and lock one out."""

import asyncio
from collections.abc import Collection
from dataclasses import dataclass, replace

from broker import enrolment
from broker.clock import Clock, text_of
from broker.credential import Credential
from broker.deployments.life import EndCause
from broker.errors import Forbidden, Refused, Taken, Unknown
from broker.rights import Action, Party, PrincipalKind, Span
from testbed_api.actions.caller import Caller
from testbed_api.broker_auth.connections import BrokerConnections
from testbed_api.deployments import ending
from testbed_api.deployments.news import DeploymentNews
from testbed_api.domain import enrolment as enrolling
from testbed_api.domain import runners, tokens
from testbed_api.domain.audit import AuditContext
from testbed_api.domain.enrolment import EnrolmentClaim
from testbed_api.domain.errors import Unauthenticated
from testbed_api.domain.runners import PromisedResources, Runner, RunnerCode
from testbed_api.limits.sign_in_attempts import SignInAttempts, place_of
from testbed_api.registry.registry import Registry


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerWanted:
    """A runner that is to be enrolled.

    opens_to: organisations that may deploy there; None for the default: its own alone, and all for
    the intermediary's.  to_all: every organisation may.
    """

    name: str
    labels: frozenset[str] = frozenset()
    opens_to: frozenset[str] | None = None
    to_all: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolledRunner:
    """A runner that has just been enrolled, with its credential and the fingerprint of its key."""

    credential: Credential
    fingerprint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteView:
    """A runner as a caller sees it.

    opens_to: names no other organisation to guests of the site.  takes_work, reason: as it says
    itself, or False if it was not heard of lately.
    """

    runner: Runner
    opens_to: frozenset[str] | None
    promised: PromisedResources
    takes_work: bool
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerActions:
    """Enrols and locks out runners, and writes the audit entry of each act."""

    registry: Registry
    connections: BrokerConnections
    attempts: SignInAttempts
    news: DeploymentNews
    clock: Clock

    async def make_code(
        self, context: AuditContext, caller: Caller, wanted: RunnerWanted
    ) -> tuple[str, RunnerCode]:
        """Make a one-time code for a runner of the caller's organisation.

        One that is enrolled gets the new labels and openness, and its next enrolment ends its
        former credential.  Raises Unknown for organisations that are not there, Taken for a name
        that another principal has.
        """
        caller.must(Action.HOST, caller.organisation)
        now_ns = self.clock.now_ns()
        party = caller.rights.organisations.get(caller.organisation)
        runner = Runner(
            id=wanted.name,
            organisation=caller.organisation,
            labels=wanted.labels,
            opens_to=_openness(wanted, caller.organisation, party),
            made_ns=now_ns,
            made_by=caller.id,
        )
        code, issued = runners.issued(runner.id, caller.id, now_ns)
        async with self.registry.change(context, self.clock) as change:
            await _must_be_known(change, runner.opens_to or ())
            await _must_be_free(change, runner)
            await change.runners.put(runner)
            await change.runners.add_code(issued)
        return code, issued

    async def enrol(self, context: AuditContext, claim: EnrolmentClaim) -> EnrolledRunner:
        """Enrol the runner that shows a code; the caller has no credential yet.

        The same key may show the same code again within its hour: it gets a new credential, and
        the former one ends.  Raises Invalid for a signature that is not the key's, Unauthenticated
        for a code that does not count, TooMany after too many failures from one address.
        """
        now_ns = self.clock.now_ns()
        keys = (f"enrolling from {place_of(context.source)}",)
        self.attempts.begin(keys)
        public_key = await asyncio.to_thread(claim.checked_key)
        async with self.registry.change(context, self.clock) as change:
            before = await change.runners.find_code(enrolling.hashed(claim.code))
            used = _used(before, public_key, now_ns)
            if used is None:
                raise Unauthenticated(
                    "the code is not right, was used, or its hour is over",
                    hint="have a new one made: testbed runner code",
                )
            runner = await change.runners.get(used.runner)
            principal = await change.principals.find(runner.id, now_ns)
            if principal is None:
                principal = runners.principal_of(runner, now_ns)
                await change.principals.add(principal, used.by)
            await change.tokens.revoke_all(runner.id, by=used.by, now_ns=now_ns)
            credential, token = tokens.issued(
                runner.id, Span(now_ns), label="enrolled", by=used.by, bus=False
            )
            await change.tokens.add(token)
            await change.runners.update_code(used)
        self.attempts.succeeded(keys)
        return EnrolledRunner(credential=credential, fingerprint=enrolment.fingerprint(public_key))

    async def seen(self, caller: Caller) -> list[SiteView]:
        """The runners that the caller's organisation knows of; all for who operates the testbed."""
        caller.must(Action.OVERSEE, caller.organisation)
        sees_all = caller.may(Action.OVERSEE)
        async with self.registry.snapshot() as snapshot:
            known = await snapshot.runners.all()
            promised = await snapshot.runners.promised()
        mine = caller.organisation
        now_ns = self.clock.now_ns()
        views = [
            _view(each, promised.get(each.id, PromisedResources()), now_ns)
            for each in known
            if sees_all or each.is_seen_by(mine)
        ]
        if sees_all:
            return views
        return [
            each if each.runner.organisation == mine else _as_guest(each, mine) for each in views
        ]

    async def lock_out(self, context: AuditContext, caller: Caller, name: str) -> None:
        """End a runner, its credential and its codes; the deployments there end with it."""
        runner = await self.registry.runners.find(name)
        seen = runner is not None and (
            runner.is_seen_by(caller.organisation) or caller.may(Action.OVERSEE)
        )
        if runner is None or runner.ended_ns is not None or not seen:
            raise Unknown(f"there is no runner {name!r}")
        _must_host(caller, runner)
        now_ns = self.clock.now_ns()
        machines: list[str] = []
        async with self.registry.change(context, self.clock) as change:
            principal = await change.principals.find(name, now_ns)
            if principal is not None:
                await change.principals.end(principal, by=caller.id, now_ns=now_ns)
            await change.runners.end(name, by=caller.id, now_ns=now_ns)
            for deployment in await change.deployments.of_runner(name):
                reason = f"its site {name} was locked out by {caller.organisation}"
                machines += await ending.end(change, deployment, EndCause.SITE, reason, now_ns)
        self.news.tell()
        for machine in machines:
            await self.connections.disconnect(machine)


def _must_host(caller: Caller, runner: Runner) -> None:
    if caller.may(Action.HOST, runner.organisation):
        return
    caller.must(Action.HOST, caller.organisation)
    raise Forbidden(
        f"runner {runner.id} is {runner.organisation}'s: its people lock it out",
        hint="deploy with labels that other sites have",
    )


def _openness(wanted: RunnerWanted, own: str, party: Party | None) -> frozenset[str] | None:
    if wanted.to_all or (wanted.opens_to is None and party is Party.INTERMEDIARY):
        return None
    return frozenset({own}) if wanted.opens_to is None else wanted.opens_to


async def _must_be_known(registry: Registry, organisations: Collection[str]) -> None:
    known = {each.id for each in await registry.organisations.all()}
    if missing := set(organisations) - known:
        raise Unknown(f"there is no organisation {min(missing)!r}", hint="look at `opens_to`")


async def _must_be_free(registry: Registry, runner: Runner) -> None:
    """Raise Taken if another principal has or had the runner's name."""
    identity = await registry.principals.identity(runner.id)
    if identity not in {None, (runner.organisation, PrincipalKind.RUNNER)}:
        raise Taken(f"principal {runner.id!r} exists already", hint="choose another name")


def _used(before: RunnerCode | None, public_key: bytes, now_ns: int) -> RunnerCode | None:
    """The code as it is used with this key, None if it does not count."""
    try:
        return None if before is None else before.used(public_key, now_ns)
    except Refused:
        return None


def _view(runner: Runner, promised: PromisedResources, now_ns: int) -> SiteView:
    takes_work, reason = _readiness(runner, now_ns)
    return SiteView(
        runner=runner,
        opens_to=runner.opens_to,
        promised=promised,
        takes_work=takes_work,
        reason=reason,
    )


def _readiness(runner: Runner, now_ns: int) -> tuple[bool, str]:
    """Whether a runner takes work, and why not."""
    if runner.state is None or runner.seen_ns is None:
        return False, "it has not reported yet"
    if not runner.is_heard_of(now_ns):
        return False, f"it has not answered since {text_of(runner.seen_ns)}"
    return runner.state.takes_work, runner.state.reason


def _as_guest(view: SiteView, guest: str) -> SiteView:
    """A runner as an organisation sees it that deploys there."""
    return view if view.opens_to is None else replace(view, opens_to=frozenset({guest}))
