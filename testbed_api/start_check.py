"""Refuses a start of a server that cannot succeed, before the server is loaded."""

from broker.backends.nats import listening_ports
from broker.errors import Invalid
from testbed_api import data_folder
from testbed_api.http.listener import listening
from testbed_api.security import certificates
from testbed_api.settings import MOSQUITTO, ServerSettings


def check(settings: ServerSettings) -> None:
    """Raise the Refused that ends a start with these settings.

    Invalid: they name a broker that runs by itself, or conflict about TLS.  Taken: a server runs on
    the data folder, or a port is in use.  The folder need not exist, and is not changed.
    """
    if settings.internal_listener is not None:
        raise Invalid(
            "TESTBED_BROKER_SERVER names a broker that runs by itself",
            hint="run `testbed api` and `testbed recorder` beside it, or take that setting out",
        )
    if settings.broker_backend == MOSQUITTO:
        raise Invalid(
            "TESTBED_BROKER_BACKEND names a Mosquitto, which runs by itself",
            hint="run `testbed api`, `testbed reconcile` and `testbed recorder` beside it",
        )
    certificates.from_settings(settings)
    data_folder.check_unlocked(settings.folder)  # its ports are taken, too: not the cause
    with listening(settings.host, settings.api_port):
        listening_ports.check(settings.host, settings.mqtt_listener_port)
