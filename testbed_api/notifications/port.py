"""The port of a channel on which notices leave the testbed."""

from typing import Protocol

from testbed_api.domain.notices import QueuedNotice


class NoticeSender(Protocol):
    """Sends notices on one channel, one at a time."""

    async def send(self, notice: QueuedNotice, address: str) -> None:
        """Return once the other side has taken the notice; raises Unavailable if it has not.

        The same notice may be sent again after it was taken, with the same id.  address: e-mail
        address of its person, empty for a webhook.
        """
