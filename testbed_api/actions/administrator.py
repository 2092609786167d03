"""Issues the administrator's credential at the start of a server, and new ones for lost ones.

These acts need no caller with a right: they are for those who start the server or hold its disk.
"""

from broker.clock import Clock
from broker.credential import Credential
from broker.errors import Refused, Taken, Unknown
from broker.rights import Party, Principal, PrincipalKind, Role, Span
from testbed_api.domain import organisations, tokens
from testbed_api.domain.audit import AuditContext, OtherAction
from testbed_api.domain.organisations import INTERMEDIARY, Organisation
from testbed_api.registry.registry import Registry
from testbed_api.security.system_secrets import ADMINISTRATOR

FIRST, RENEWED = "first token", "renewed"
"""Labels of the tokens."""


async def credential_to_show(registry: Registry, clock: Clock) -> Credential | None:
    """Issue the administrator's credential that a start shows; None once one of them was used.

    A start may end before anybody has read it, and only its hash is stored.  So each start issues
    a new one in place of the last, until one was used.
    """
    credential = Credential.make(ADMINISTRATOR)
    if await first_start(registry, credential, clock):
        return credential
    async with registry.snapshot() as snapshot:
        administrator = await snapshot.principals.find(ADMINISTRATOR, clock.now_ns())
        was_used = await snapshot.tokens.any_used(ADMINISTRATOR)
    if was_used or administrator is None or administrator.organisation != INTERMEDIARY:
        return None
    context = AuditContext(
        action=OtherAction.SHOW_ADMINISTRATOR,
        target=f"credential of {ADMINISTRATOR}",
        owner=INTERMEDIARY,
    )
    async with registry.change(context, clock) as change:
        await _replace(change, credential, FIRST, clock)
    return credential


async def first_start(registry: Registry, credential: Credential, clock: Clock) -> bool:
    """Create the intermediary with its first owner, the administrator; False if it exists.

    The administrator creates the other organisations.  Raises Refused if an organisation of another
    kind has the intermediary's id.
    """
    existing = {
        organisation.id: organisation for organisation in await registry.organisations.all()
    }
    if any(organisation.kind is Party.INTERMEDIARY for organisation in existing.values()):
        return False
    if INTERMEDIARY in existing:
        raise Refused(f"organisation {INTERMEDIARY!r} is a {existing[INTERMEDIARY].kind}")
    now_ns = clock.now_ns()
    owner = organisations.person(credential.principal, INTERMEDIARY, {Role.OWNER}, now_ns)
    context = AuditContext(
        action=OtherAction.FIRST_START, target=f"organisation {INTERMEDIARY}", owner=INTERMEDIARY
    )
    try:
        async with registry.change(context, clock) as change:
            await change.organisations.add(
                Organisation(INTERMEDIARY, "Who runs the testbed", Party.INTERMEDIARY)
            )
            await change.principals.add(owner)
            await change.tokens.add(tokens.from_credential(credential, owner.span, label=FIRST))
    except Taken:
        if INTERMEDIARY not in {
            organisation.id for organisation in await registry.organisations.all()
        }:
            raise
        return False  # another API started at this moment
    return True


async def renew(registry: Registry, person: str, clock: Clock) -> Credential:
    """Issue a new credential for the administrator, or for an owner who lost every one.

    All earlier tokens of the person and its password end.  An administrator who was removed comes
    back as an owner of the intermediary.  Raises Unknown if the person owns no organisation.
    """
    credential = Credential.make(person)
    if person == ADMINISTRATOR and await first_start(registry, credential, clock):
        return credential
    context = AuditContext(action=OtherAction.RENEW_CREDENTIAL, target=f"credential of {person}")
    async with registry.change(context, clock) as change:
        principal = await change.principals.find(person, clock.now_ns())
        if person == ADMINISTRATOR:
            principal = await _restored(change, principal, clock)
        if principal is None or Role.OWNER not in principal.roles:
            raise Unknown(
                f"there is no owner {person!r} of an organisation",
                hint="others get a new token from an owner of their organisation: it removes and"
                " adds them",
            )
        context.entry.owner = principal.organisation
        await _replace(change, credential, RENEWED, clock)
    return credential


async def _restored(change: Registry, administrator: Principal | None, clock: Clock) -> Principal:
    """The administrator as an owner of the intermediary, whatever was taken from it."""
    now_ns = clock.now_ns()
    if administrator is None:
        created = organisations.person(ADMINISTRATOR, INTERMEDIARY, {Role.OWNER}, now_ns)
        await change.principals.add(created)
        return created
    if administrator.kind is not PrincipalKind.PERSON or Role.OWNER in administrator.roles:
        return administrator
    roles = administrator.roles | {Role.OWNER}
    return await change.principals.change_roles(administrator, roles, by=None, now_ns=now_ns)


async def _replace(change: Registry, credential: Credential, label: str, clock: Clock) -> None:
    """Store a credential's token in place of its principal's earlier tokens and password."""
    now_ns = clock.now_ns()
    await change.tokens.revoke_all(credential.principal, by=None, now_ns=now_ns)
    await change.passwords.remove(credential.principal)
    await change.tokens.add(tokens.from_credential(credential, Span(now_ns), label=label))
