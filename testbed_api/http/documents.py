"""Answers about nouns of the domain that routes of several files give."""

from collections.abc import Iterable

from broker.clock import text_of
from broker.credential import Credential
from broker.responses.credentials import NewTokenResponse, TokenResponse, TokensResponse
from broker.responses.equipment import EquipmentResponse
from testbed_api.domain.equipment import Equipment
from testbed_api.domain.tokens import Token


def token_response(token: Token) -> TokenResponse:
    """A token without its secret."""
    used_ns, until_ns = token.last_used_ns, token.span.until_ns
    return TokenResponse(
        id=token.id,
        principal=token.principal,
        label=token.label,
        created=text_of(token.span.from_ns),
        expires=None if until_ns is None else text_of(until_ns),
        last_used=None if used_ns is None else text_of(used_ns),
        roles=None if token.roles is None else sorted(token.roles),
    )


def tokens_response(tokens: Iterable[Token]) -> TokensResponse:
    """Tokens without their secrets."""
    return TokensResponse(items=list(map(token_response, tokens)))


def new_token_response(credential: Credential, token: Token) -> NewTokenResponse:
    """A new token with its credential, which nobody can ask for again."""
    return NewTokenResponse.extending(token_response(token), credential=credential.text)


def equipment_response(equipment: Equipment) -> EquipmentResponse:
    """An equipment as it is registered."""
    return EquipmentResponse(
        organisation=equipment.address.organisation,
        equipment=equipment.address.equipment,
        name=equipment.name,
        kind=equipment.kind,
        site=dict(equipment.site),
        description=equipment.description,
    )
