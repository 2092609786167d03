"""The fixtures of the API's tests; a test that means something else by a name makes its own."""

from tests.integration.api_bed import admin, bed, owner, reader, rig, writer
from tests.integration.office import office

__all__ = ["admin", "bed", "office", "owner", "reader", "rig", "writer"]
