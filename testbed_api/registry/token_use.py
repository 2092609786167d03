"""When a token was last used: worth knowing, and no reason to keep anybody out."""

import structlog

from broker.errors import Unavailable
from testbed_api.domain.tokens import Token
from testbed_api.registry.registry import Registry

log = structlog.get_logger()


async def note(registry: Registry, token: Token, now_ns: int) -> None:
    """Remember it; what cannot be written, as with a full disk, is told in the log."""
    try:
        await registry.tokens.note_use(token, now_ns)
    except Unavailable as exc:
        log.warning("last use was not noted", principal=token.principal, reason=str(exc))
