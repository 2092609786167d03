"""The testbed's errors, in branches by what the caller may do next.

BedError
├── Refused            do not retry: the request itself must change
│   ├── Invalid        a value, file or message is wrong in itself
│   ├── Unknown        no such thing, or none that you may see
│   ├── Forbidden      you may not
│   │   ├── Paused     you may, but its owner has paused your grant
│   │   └── NotGranted your grant has ended, or your request is not answered
│   └── Taken          it exists already, or somebody else holds it
├── Unavailable        a real system does not answer: retry with back-off
├── Partial            some rows are done; `rejected` and `later` say which are not
└── Corrupt            bytes are malformed: count them, set them aside, never guess

Anything else that is raised is a bug and must crash.
"""

from collections.abc import Sequence
from typing import ClassVar


class BedError(Exception):
    """Base of all errors: a stable `code`, a message with values and units, and a `hint`."""

    code: ClassVar[str] = "error"

    def __init__(self, message: str, *, hint: str = "") -> None:
        """message: the fault and its place, with the value.  hint: what would be right."""
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class Refused(BedError):
    """The request itself is wrong: repeating it will not help."""

    code = "refused"


class Invalid(Refused):
    """A value, a file or a message is wrong in itself."""

    code = "invalid"


class Unknown(Refused):
    """No such thing exists, or none that the caller may see: both give the same error."""

    code = "unknown"


class Forbidden(Refused):
    """The credential does not cover this."""

    code = "forbidden"


class Paused(Forbidden):
    """A grant of the caller's organisation covers this, and its owner has paused it."""

    code = "paused"


class NotGranted(Forbidden):
    """A grant or request of the caller's organisation is about this, and does not cover it now."""

    code = "not_granted"


class Taken(Refused):
    """The name, port or folder is already in use, or the content differs from what is kept."""

    code = "taken"


class Unavailable(BedError):
    """A real system did not answer; the same request may succeed later."""

    code = "unavailable"


class Partial(BedError):
    """Some rows were done and some were not."""

    code = "partial"

    def __init__(
        self,
        message: str,
        *,
        rejected: Sequence[tuple[int, str]],
        later: Sequence[tuple[int, str]] = (),
        hint: str = "",
    ) -> None:
        """rejected: (index of the row in the caller's sequence, the reason), ascending; will never
        be done.  later: likewise, of those that may be done another time.
        """
        super().__init__(message, hint=hint)
        self.rejected = tuple(rejected)
        self.later = tuple(later)


class Corrupt(BedError):
    """Bytes that are malformed."""

    code = "corrupt"


def first_of(group: BaseExceptionGroup[BedError]) -> BedError:
    """Return the first error in a group, however deep."""
    first = group.exceptions[0]
    return first_of(first) if isinstance(first, BaseExceptionGroup) else first
