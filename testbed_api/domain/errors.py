"""Errors of the server with a meaning of their own: unauthenticated, and too many requests."""

from broker.errors import Forbidden, Refused


class Unauthenticated(Forbidden):
    """No credential came with the request, or one that is not right."""

    code = "unauthenticated"


class TooMany(Refused):
    """There were too many requests lately: the caller must wait before the next."""

    code = "too_many"

    def __init__(self, message: str, *, wait_s: int, hint: str = "") -> None:
        """wait_s: seconds until the request may be repeated."""
        super().__init__(message, hint=hint)
        self.wait_s = wait_s
