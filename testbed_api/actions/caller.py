"""The caller of an action, and the policy's answer to what it asks for."""

from dataclasses import dataclass, replace

from broker import policy
from broker.clock import text_of
from broker.errors import Forbidden, Paused, Unknown
from broker.namespace import EquipmentAddress, StreamAddress, StreamTopic, Verb
from broker.policy import Decision, Target
from broker.rights import Action, Entry, Grant, Principal, PrincipalKind, Rights, Span
from testbed_api.domain.tokens import Token
from testbed_api.registry.equipment import Visibility
from testbed_api.registry.registry import Registry
from testbed_api.registry.rights import About

OTHER_SPACE = "TESTBED_SPACE, --space of a command or `space` over HTTP names another space"
"""The hint about a stream that is not there: it may be in another space."""


@dataclass(frozen=True, slots=True)
class Caller:
    """The principal who acts, with its token and its rights at that moment."""

    principal: Principal
    token: Token
    rights: Rights
    at_ns: int

    @property
    def id(self) -> str:
        """The name of the principal."""
        return self.principal.id

    @property
    def organisation(self) -> str:
        """The organisation of the principal."""
        return self.principal.organisation

    @property
    def narrowed(self) -> str:
        """The roles that the token leaves its person, as a hint; empty for a whole token."""
        if self.token.roles is None:
            return ""
        return f"this token holds {' and '.join(sorted(self.principal.roles))} alone"

    def may(self, action: Action, target: Target = None) -> bool:
        """Whether the policy allows the action on the target."""
        return policy.decide(self.rights, self.id, action, target, self.at_ns).allowed

    def may_read(self, space: str, address: StreamAddress) -> bool:
        """Whether it may read a stream over HTTP: whether it might subscribe to its data."""
        return self._reading(space, address).allowed

    def must(self, action: Action, target: Target = None) -> None:
        """Raise Unknown for what does not exist for it, Forbidden for what it sees and may not do.

        So what is foreign and what is missing answer alike.
        """
        decision = policy.decide(self.rights, self.id, action, target, self.at_ns)
        if decision.allowed:
            return
        if not self._sees(target):
            raise Unknown(f"there is no {_named(target)}", hint=self.narrowed)
        raise Forbidden(
            f"{self.id} may not {action} {_named(target)}: {decision.reason}",
            hint=self.narrowed or "`testbed whoami` says what you are (GET /me)",
        )

    def must_read(self, space: str, address: StreamAddress) -> None:
        """Raise Unknown unless it may read the stream, and Paused where only a pause forbids it.

        A caller whose grant is paused reads the stream at other times, so it knows of it.
        """
        decision = self._reading(space, address)
        if decision.pause is not None:
            owner, since = decision.pause.owner, text_of(decision.pause.span.from_ns)
            raise Paused(
                f"grant {decision.grant} of stream {address} in space {space} is paused by {owner}"
                f" since {since}: nobody reads under it until {owner} resumes it",
                hint=f"`testbed grant show {decision.grant}` shows it; ask {owner}",
            )
        if not decision.allowed:
            sentence = f"there is no stream {address} in space {space} that you may read"
            raise Unknown(sentence, hint="; ".join(filter(None, (OTHER_SPACE, self.narrowed))))

    def would_read(self, entry: Entry) -> bool:
        """Whether it would read another organisation's stream if that were granted to its own."""
        granted = Grant(0, self.organisation, entry, Span())
        rights = replace(self.rights, grants=(granted,), pauses=())
        topic = StreamTopic(entry.space, Verb.DATA, entry.address)
        foreign = entry.address.organisation != self.organisation
        decision = policy.decide(rights, self.id, Action.SUBSCRIBE, topic, self.at_ns)
        return foreign and decision.allowed

    def must_hold_all_roles(self) -> None:
        """Raise Forbidden for a machine, and for a token of only some of its person's roles."""
        self.must(Action.ENTER)
        if self.principal.kind is not PrincipalKind.PERSON:
            raise Forbidden(
                f"{self.id} is a machine",
                hint="people make its tokens: see `testbed credential --help` (/credentials)",
            )
        if self.narrowed:
            raise Forbidden(
                "tokens and passwords are looked after with a token of all your roles",
                hint=f"{self.narrowed}: use another, or sign in",
            )

    def _reading(self, space: str, address: StreamAddress) -> Decision:
        topic = StreamTopic(space, Verb.DATA, address)
        return policy.decide(self.rights, self.id, Action.SUBSCRIBE, topic, self.at_ns)

    @property
    def visible(self) -> Visibility:
        """The equipment and streams that it may see; `may(SEE, …)` says the same of one target."""
        if self.principal.kind is PrincipalKind.RUNNER:
            return Visibility(None, frozenset(), frozenset())
        scope, addresses = (
            self.principal.scope,
            {grant.entry.address for grant in self.rights.grants},
        )
        addresses |= {entry.address for entry in scope.reads | scope.writes}
        streams = frozenset(each for each in addresses if self.may(Action.SEE, each))
        if self.principal.kind is PrincipalKind.MACHINE:
            own = frozenset() if scope.equipment is None else frozenset({scope.equipment})
            return Visibility(None, own, streams)
        listings = policy.visible_listings(self.rights, self.principal, self.at_ns)
        return Visibility(
            self.organisation, frozenset(listing.equipment for listing in listings), streams
        )

    def sees_organisation(self, organisation: str) -> bool:
        """Whether it sees an organisation: its own, of equipment it sees, all for a founder or an
        operator.
        """
        if organisation == self.organisation or self.may(Action.FOUND):
            return True
        if self.may(Action.OVERSEE, organisation):
            return True
        visible = self.visible
        owners = visible.equipment | {stream.owner for stream in visible.streams}
        return any(owner.organisation == organisation for owner in owners)

    def _sees(self, target: Target) -> bool:
        match target:
            case None:
                return True
            case str():
                return self.sees_organisation(target)
            case StreamTopic(_, _, address):
                return self.may(Action.SEE, address)
            case StreamAddress() | EquipmentAddress() | Entry():
                return self.may(Action.SEE, target)
        return False


async def find(
    registry: Registry, principal: str, secret_hash: str, at_ns: int, about: About = None
) -> Caller | None:
    """The caller with its rights at an instant; None if the token does not count then.

    about: the only equipment or stream that it acts on, None for all.
    """
    async with registry.snapshot() as snapshot:
        token = await snapshot.tokens.find(principal, secret_hash)
        if token is None or not token.span.covers(at_ns):
            return None
        rights = await snapshot.rights.of_principal(principal, at_ns, about)
    rights = rights.with_roles(principal, token.roles)
    known = rights.principal(principal, at_ns)
    return None if known is None else Caller(known, token, rights, at_ns)


def _named(target: Target) -> str:
    match target:
        case None:
            return "the testbed"
        case str():
            return f"organisation {target!r}"
        case EquipmentAddress():
            return f"equipment {target}"
        case Entry(space, address):
            return f"stream {address} in space {space}"
        case StreamTopic(_, _, address):
            return f"stream {address}"
    return f"stream {target}"
