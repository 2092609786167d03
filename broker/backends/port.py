"""What two real brokers stand behind for those who change rights."""

from typing import Protocol

from broker.settings import Address


class RunningBroker(Protocol):
    """A running broker that admits whom the registry names, to exactly what the policy lists.

    Rights are decided elsewhere and written down there first; here it is told that they changed.
    Both calls may be made at any time, by several tasks and processes, and again: what is done
    already is done once.  They raise Unavailable if the broker does not confirm in time; the rights
    as written hold all the same, on NATS from the next connection on, on Mosquitto within half a
    second of the reconciler's next look.

    What the broker owes whoever changes nothing: nobody has more than the policy lists now; who is
    revoked or expires is silent, while connected, while away and after coming back; no session has
    two owners; and a broker whose state was wiped lets in nobody but the system until it has been
    told everything again.
    """

    @property
    def mqtt(self) -> Address:
        """Where it listens."""

    async def disconnect(self, principal: str) -> None:
        """End the connections of somebody whose rights changed: on return none has the old ones.

        Whoever may still come in is back with the rights of now.
        """

    async def announce(self, principal: str) -> None:
        """Somebody has a new token: on return it is let in with it.  Connections stay.

        Does not raise: a token was shown by now, and counts a moment later.
        """
