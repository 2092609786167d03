"""Tokens, by which principals are authenticated; of each secret only a hash is stored."""

import hashlib
from collections.abc import Collection
from dataclasses import dataclass, field, replace

from broker import credential
from broker.clock import NS_PER_S
from broker.credential import Credential
from broker.errors import Forbidden, Invalid
from broker.rights import Principal, PrincipalKind, Role, Span
from testbed_api.domain.equipment import MOST_NAME, checked_text
from testbed_api.domain.organisations import checked_principal

USE_EVERY_S = 60.0
"""A use within this time of the last one noted is not noted again."""


@dataclass(frozen=True, slots=True)
class Token:
    """One of the tokens of a principal.

    It holds what its principal holds whenever it is used: a machine's scope, a person's roles, or
    of those only `roles`; None is all of them.  label: what it is for, in the words of whoever made
    it.  span: until it expires or was revoked.  verifier: what a broker that asks nobody holds the
    secret against; empty for a token that is none for the bus.
    """

    principal: str
    secret_hash: str = field(repr=False)
    span: Span
    label: str = ""
    by: str | None = None
    last_used_ns: int | None = None
    id: int = 0
    verifier: str = field(default="", repr=False)
    roles: frozenset[Role] | None = None

    def __post_init__(self) -> None:
        checked_principal(self.principal)
        checked_text(self.label, "label", MOST_NAME)
        if self.roles is not None and not self.roles:
            raise Invalid("the token holds no role", hint=f"name some of {', '.join(Role)}")

    def is_use_due(self, now_ns: int) -> bool:
        """Whether a use now is to be stored: the last one was not within USE_EVERY_S."""
        used_ns = self.last_used_ns
        return used_ns is None or now_ns - used_ns >= round(USE_EVERY_S * NS_PER_S)

    def narrowed(self, roles: Collection[Role], whose: Principal) -> "Token":
        """Return the token limited to some roles of its person.

        Raises Invalid for a machine's token, Forbidden for a role that the person does not have.
        """
        if whose.kind is not PrincipalKind.PERSON:
            raise Invalid(
                f"{whose.id} is a machine: its tokens hold its scope, and no roles",
                hint="leave the roles out, or make a machine that holds less",
            )
        if beyond := set(roles) - whose.roles:
            raise Forbidden(
                f"{whose.id} does not have the role {' and '.join(sorted(beyond))}",
                hint=f"choose from {', '.join(sorted(whose.roles))}",
            )
        return replace(self, roles=frozenset(roles))


def issued(
    principal: str, span: Span, *, label: str = "", by: str | None = None, bus: bool = True
) -> tuple[Credential, Token]:
    """Make a new credential, to be shown once, and its token, to be stored.

    bus: one for the bus too, also where the broker knows of one at a time.
    """
    issued_credential = Credential.make(principal)
    return issued_credential, from_credential(issued_credential, span, label=label, by=by, bus=bus)


def from_credential(
    issued_credential: Credential,
    span: Span,
    *,
    label: str = "",
    by: str | None = None,
    bus: bool = True,
) -> Token:
    """Return the token to store for a credential, with a hash of the secret."""
    held_against = credential.verifier(issued_credential.secret) if bus else ""
    return Token(
        issued_credential.principal,
        hashed(issued_credential.secret),
        span,
        label,
        by,
        verifier=held_against,
    )


def hashed(secret: str) -> str:
    """Return the SHA-256 of a secret; its 256 random bits need no slow hash."""
    return hashlib.sha256(secret.encode()).hexdigest()
