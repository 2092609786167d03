"""Stores the last use of tokens; a failure to store it refuses nobody."""

import structlog

from broker.errors import Unavailable
from testbed_api.domain.tokens import Token
from testbed_api.registry.registry import Registry

log = structlog.get_logger()


async def note(registry: Registry, token: Token, now_ns: int) -> None:
    """Store the use of a token now; a failure, as with a full disk, is logged."""
    try:
        await registry.tokens.note_use(token, now_ns)
    except Unavailable as exc:
        log.warning("last use was not noted", principal=token.principal, reason=str(exc))
