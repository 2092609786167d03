"""Stores the last use of tokens; a failure to store it refuses nobody."""

from collections.abc import Sequence

import structlog

from broker.errors import Unavailable
from testbed_api.domain.tokens import Token
from testbed_api.registry.coalescing import Coalescer
from testbed_api.registry.registry import Registry

log = structlog.get_logger()


class TokenUses:
    """Stores that tokens were used; uses at the same time share a transaction."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._coalescer: Coalescer[tuple[Token, int], None] = Coalescer(self._write)

    async def note(self, token: Token, now_ns: int) -> None:
        """Store the use of a token now; a failure, as with a full disk, is logged."""
        if token.is_use_due(now_ns):
            await self._coalescer.submit((token, now_ns))

    async def _write(self, uses: Sequence[tuple[Token, int]]) -> None:
        try:
            await self._registry.tokens.note_uses({token.id: at_ns for token, at_ns in uses})
        except Unavailable as exc:
            log.warning("last uses were not noted", tokens=len(uses), reason=str(exc))
