"""Answers about principals, their tokens and what they may read and write."""

from collections.abc import Iterable
from typing import Annotated, Self

from pydantic import Field

from broker import rights
from broker.clock import text_of
from broker.responses.base import STREAM, ApiResponse, Instant, OptionalInstant
from broker.rights import Entry, Principal, Role


class EntryResponse(ApiResponse):
    """A stream in a space."""

    space: Annotated[str, Field(examples=["live"])]
    stream: Annotated[str, Field(examples=[STREAM])]

    @classmethod
    def from_entry(cls, entry: Entry) -> Self:
        """The entry as the API answers it."""
        return cls(space=entry.space, stream=str(entry.address))

    @classmethod
    def from_entries(cls, entries: Iterable[Entry]) -> list[Self]:
        """Entries in their order, as the API answers them."""
        return [cls.from_entry(entry) for entry in sorted(entries)]

    def __str__(self) -> str:
        return f"{self.space}:{self.stream}"


class PrincipalResponse(ApiResponse):
    """A person or a machine, with what it may do."""

    principal: Annotated[str, Field(examples=["detector"])]
    kind: Annotated[rights.PrincipalKind, Field(examples=["machine"])]
    organisation: Annotated[str, Field(examples=["company"])]
    roles: Annotated[list[Role], Field(description="of a person", examples=[[]])]
    reads: Annotated[list[EntryResponse], Field(description="of a machine")]
    writes: Annotated[list[EntryResponse], Field(description="of a machine", examples=[[]])]
    equipment: Annotated[
        str | None, Field(description="whose gateway the machine is", examples=[None])
    ]
    expires: Annotated[str | None, Field(description="null is never", examples=[None])]

    @classmethod
    def from_principal(cls, principal: Principal) -> Self:
        """The principal as the API answers it."""
        scope, until_ns = principal.scope, principal.span.until_ns
        return cls(
            principal=principal.id,
            kind=principal.kind,
            organisation=principal.organisation,
            roles=sorted(principal.roles),
            reads=EntryResponse.from_entries(scope.reads),
            writes=EntryResponse.from_entries(scope.writes),
            equipment=None if scope.equipment is None else str(scope.equipment),
            expires=None if until_ns is None else text_of(until_ns),
        )


class PrincipalsResponse(ApiResponse):
    """The machines of an organisation."""

    items: list[PrincipalResponse]


class NewPrincipalResponse(PrincipalResponse):
    """A new machine with its credential, which is shown this once."""

    credential: Annotated[str, Field(examples=["detector.pK0v…"])]
    not_granted: Annotated[
        list[EntryResponse],
        Field(description="of `reads`, what no grant covers now: it reads them once one does"),
    ]
    not_registered: Annotated[
        list[EntryResponse],
        Field(
            description="of `reads`, your own streams that nobody has registered yet", examples=[[]]
        ),
    ]


class TokenResponse(ApiResponse):
    """A token without its secret."""

    id: Annotated[int, Field(examples=[3])]
    principal: Annotated[str, Field(examples=["fay"])]
    label: Annotated[str, Field(examples=["my laptop"])]
    created: Annotated[Instant, Field(alias="made")]
    expires: Annotated[str | None, Field(description="null is never", examples=[None])]
    last_used: OptionalInstant
    roles: Annotated[
        list[Role] | None,
        Field(description="null is all roles of its person", examples=[None]),
    ]


class TokensResponse(ApiResponse):
    """The tokens of a principal."""

    items: list[TokenResponse]


class NewTokenResponse(TokenResponse):
    """A new token with its credential, which is shown this once."""

    credential: Annotated[str, Field(examples=["fay.pK0v…"])]


class MeResponse(PrincipalResponse):
    """The caller: `roles` are those that its token leaves it."""

    token: TokenResponse
