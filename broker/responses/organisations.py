"""Answers about organisations and their members."""

from typing import Annotated

from pydantic import Field

from broker.responses.base import ApiResponse, Instant
from broker.rights import Party, Role


class OrganisationResponse(ApiResponse):
    """A party of the testbed."""

    id: Annotated[str, Field(examples=["factory"])]
    name: Annotated[str, Field(examples=["The Factory Ltd"])]
    kind: Annotated[Party, Field(examples=["partner"])]


class OrganisationsResponse(ApiResponse):
    """The organisations that the caller sees."""

    items: list[OrganisationResponse]


_EMAIL = Field(
    description="where notices go; its own organisation alone sees it; null for none",
    examples=["fay@factory.example"],
)


class MemberResponse(ApiResponse):
    """A person in an organisation."""

    person: Annotated[str, Field(examples=["fay"])]
    roles: Annotated[list[Role], Field(examples=[["owner"]])]
    since: Instant
    email: Annotated[str | None, _EMAIL]


class MembersResponse(ApiResponse):
    """The people of an organisation."""

    items: list[MemberResponse]


class NewMemberResponse(ApiResponse):
    """A new member with a first credential, which is shown this once."""

    credential: Annotated[str, Field(examples=["fay.pK0v…"])]
    person: Annotated[str, Field(examples=["fay"])]
    roles: Annotated[list[Role], Field(examples=[["owner"]])]
    since: Instant
    email: Annotated[str | None, _EMAIL]


class NewOrganisationResponse(OrganisationResponse):
    """A new organisation with its first owner, whose credential is shown this once."""

    credential: Annotated[str, Field(examples=["fay.pK0v…"])]
    person: Annotated[str, Field(examples=["fay"])]
    roles: Annotated[list[Role], Field(examples=[["owner"]])]
    since: Instant
    email: Annotated[str | None, _EMAIL]
