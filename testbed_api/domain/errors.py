"""Errors of the server that are more than a branch of the tree: who is not known, and too much."""

from broker.errors import Forbidden, Refused


class Unauthenticated(Forbidden):
    """No credential came with the request, or one that is not right."""

    code = "unauthenticated"


class TooMany(Refused):
    """Too much of it lately: wait, and ask again."""

    code = "too_many"

    def __init__(self, message: str, *, wait_s: int, hint: str = "") -> None:
        """wait_s: after so long it may be asked again."""
        super().__init__(message, hint=hint)
        self.wait_s = wait_s
