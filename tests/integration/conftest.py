"""The fixtures of the API's tests; a test that means something else by a name makes its own."""

from tests.integration.api_bed import admin, bed, owner, reader, rig, writer
from tests.integration.deployment_bed import deploying, site
from tests.integration.office import office
from tests.integration.server_bed import owners, server

__all__ = [
    "admin",
    "bed",
    "deploying",
    "office",
    "owner",
    "owners",
    "reader",
    "rig",
    "server",
    "site",
    "writer",
]
