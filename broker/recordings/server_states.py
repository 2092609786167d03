"""States of a recording that the server makes and keeps.  Pure."""

from enum import StrEnum


class RecordingState(StrEnum):
    """The stage that a recording on the server has reached."""

    MAKING = "making"
    """It is being made, or waits for its turn."""
    COMPLETE = "complete"
    FAILED = "failed"
    """It could not be made; nothing of it is left."""
    DELETED = "deleted"
    """Its files are gone; what it held stays known."""
