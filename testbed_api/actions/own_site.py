"""Enrols the runner that a server starts beside itself; needs no caller with a right.

This is for those who start the server: the credential goes into its data folder.
"""

from broker.clock import Clock
from broker.credential import Credential
from broker.rights import PrincipalKind, Span
from testbed_api.domain import runners, tokens
from testbed_api.domain.audit import AuditContext, OtherAction
from testbed_api.domain.organisations import INTERMEDIARY
from testbed_api.domain.runners import Runner
from testbed_api.registry.registry import Registry
from testbed_api.security.system_secrets import ADMINISTRATOR

SITE = "site"
"""The name of the runner: it is the intermediary's, and open to all."""


async def enrol(registry: Registry, clock: Clock) -> Credential | None:
    """Issue a new credential of the server's own runner, in place of a former one.

    None if it was locked out, which stays so, or if another principal has its name.
    """
    now_ns = clock.now_ns()
    async with registry.snapshot() as snapshot:
        known = await snapshot.runners.find(SITE)
        identity = await snapshot.principals.identity(SITE)
    if identity not in {None, (INTERMEDIARY, PrincipalKind.RUNNER)}:
        return None
    if known is not None and known.ended_ns is not None:
        return None
    runner = known or Runner(
        id=SITE,
        organisation=INTERMEDIARY,
        labels=frozenset(),
        opens_to=None,
        made_ns=now_ns,
        made_by=ADMINISTRATOR,
    )
    context = AuditContext(
        action=OtherAction.ENROL_OWN_SITE, target=f"runner {SITE}", owner=INTERMEDIARY
    )
    credential, token = tokens.issued(SITE, Span(now_ns), label="own site", bus=False)
    async with registry.change(context, clock) as change:
        if known is None:
            await change.runners.put(runner)
            await change.principals.add(runners.principal_of(runner, now_ns))
        await change.tokens.revoke_all(SITE, by=None, now_ns=now_ns)
        await change.tokens.add(token)
    return credential
