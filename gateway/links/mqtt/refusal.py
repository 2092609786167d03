"""Refusals by a sensors' broker, as errors that name the settings of the source.

The connection's own errors name the testbed's credential, which has no part in this.
"""

from broker.errors import BedError, Forbidden
from gateway.mapping.model import MqttBroker

PASSWORD = "TESTBED_SOURCE_PASSWORD, or in the file of TESTBED_SOURCE_PASSWORD_FILE"  # noqa: S105 - names
_SUBSCRIPTION = "to subscribe "
REFUSED = "refused the connection: "
"""Words before the reason that a broker gave for not letting a client in."""


def explained(error: BedError, broker: MqttBroker, password: str) -> BedError:
    """The error with the settings that a person can change; others than Forbidden as they are."""
    if not isinstance(error, Forbidden):
        return error
    _, refused, topic = error.message.partition(_SUBSCRIPTION)
    if refused:
        user = f"user {broker.user!r}" if broker.user else "a client without a user"
        return Forbidden(
            f"the broker at {broker.url} lets {user} in, and not read {topic}",
            hint="the broker's owner must allow it in its access list; or sign in as another user",
        )
    _, refused, reason = error.message.partition(REFUSED)
    if not refused:
        return error
    if not broker.user:
        return Forbidden(
            f"the broker at {broker.url} lets nobody in without a user ({reason})",
            hint="write mqtt.user into the mapping (browse: mqtt://USER@host:port), and the"
            f" password in {PASSWORD}",
        )
    if not password:
        return Forbidden(
            f"the broker at {broker.url} did not let user {broker.user!r} in, and no password is"
            f" set for it ({reason})",
            hint=f"set the password in {PASSWORD}",
        )
    return Forbidden(
        f"the broker at {broker.url} did not let user {broker.user!r} in ({reason})",
        hint=f"is that the user's password in {PASSWORD}?",
    )
