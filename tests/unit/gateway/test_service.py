"""What ends by itself in a gateway ends the gateway."""

import pytest

from broker.errors import Unavailable
from gateway import service


async def ended() -> None:
    """A link that returns."""


async def test_a_link_that_returns_is_said() -> None:
    with pytest.raises(Unavailable, match="the link ended by itself"):
        await service.without_end(ended(), "the link")
