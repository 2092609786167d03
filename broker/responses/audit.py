"""Answers about the audit: events, signed heads, and the key of their signatures."""

from typing import Annotated, Literal

from pydantic import Field

from broker.audit_head import Head
from broker.clock import text_of
from broker.responses.base import ApiResponse, Instant, PageResponse
from broker.wire import WIRE_VERSION

_HASH = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
_KEY = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"


class AuditEventResponse(ApiResponse):
    """One event in its place of the chain."""

    number: Annotated[int, Field(examples=[17])]
    time: Instant
    action: Annotated[str, Field(examples=["share"])]
    target: Annotated[str, Field(examples=["POST /grants"])]
    outcome: Annotated[Literal["allowed", "refused", "failed"], Field(examples=["allowed"])]
    principal: Annotated[str | None, Field(examples=["fay"])]
    organisation: Annotated[str | None, Field(examples=["factory"])]
    owner: Annotated[str | None, Field(examples=["factory"])]
    reason: Annotated[str, Field(examples=[""])]
    request: Annotated[str, Field(examples=["5c1f0a7be2d94c36"])]
    source: Annotated[str, Field(examples=["10.0.0.7"])]
    details: Annotated[
        str,
        Field(
            description="JSON, as it was hashed",
            examples=['{"company":"company","state":"granted"}'],
        ),
    ]
    hash: Annotated[str, Field(examples=[_HASH])]


class AuditEventPage(PageResponse):
    """A page of events, in the order of the chain."""

    items: list[AuditEventResponse]
    next: Annotated[int | None, Field(description="`cursor` of the next page", examples=[17])]
    all: Annotated[
        bool, Field(description="whether the caller sees the whole chain", examples=[False])
    ]


class AuditHeadResponse(ApiResponse):
    """A signed head of the chain: the number of events, and the hash of the last one."""

    v: Annotated[int, Field(description="version of the wire format", examples=[WIRE_VERSION])]
    count: Annotated[int, Field(examples=[17])]
    hash: Annotated[str, Field(examples=[_HASH])]
    time: Instant
    key: Annotated[str, Field(description="Ed25519, in hex", examples=[_KEY])]
    signature: Annotated[str, Field(examples=["e5564300…"])]

    @classmethod
    def from_head(cls, head: Head) -> "AuditHeadResponse":
        """The head as the API answers it."""
        return cls(
            v=WIRE_VERSION,
            count=head.count,
            hash=head.hash,
            time=text_of(head.time_ns),
            key=head.key,
            signature=head.signature,
        )


class AuditHeadPage(PageResponse):
    """A page of signed heads, in their order."""

    items: list[AuditHeadResponse]
    next: Annotated[int | None, Field(description="`cursor` of the next page", examples=[5])]


class AuditKeyResponse(ApiResponse):
    """The public key of the heads' signatures, Ed25519 in hex."""

    key: Annotated[str, Field(examples=[_KEY])]
