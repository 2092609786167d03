"""Port of a broker for the code that changes rights: NATS and Mosquitto implement it."""

from typing import Protocol

from broker.settings import Address


class RunningBroker(Protocol):
    """A running broker that admits the registry's principals, to exactly what the policy lists.

    Rights are decided elsewhere and written to the registry first; these calls say that they
    changed.  Both may be made at any time, by several tasks and processes, and repeated without
    effect.  `disconnect` raises Unavailable if the broker does not confirm in time; the rights in
    the registry hold all the same, on NATS from the next connection on, on Mosquitto within half a
    second of the reconciler's next check.

    Without any call the broker guarantees: no principal has more than the policy lists now; one
    that is revoked or expired receives nothing, while connected, while away and after coming back;
    no session has two owners; and a broker whose state was wiped admits only the system until its
    rights have been written again.
    """

    @property
    def mqtt(self) -> Address:
        """Address of its MQTT listener."""

    async def disconnect(self, principal: str) -> None:
        """End the connections of a principal whose rights changed: on return none has the old ones.

        A client that is still admitted connects again with the current rights.
        """

    async def announce(self, principal: str) -> None:
        """Make a new token of a principal count: on return it is admitted.  Connections stay.

        Does not raise: the token was handed out by now, and counts a moment later.
        """
