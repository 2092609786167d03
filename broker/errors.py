"""What can go wrong, sorted by what the caller may do next.

BedError
├── Refused            do not retry: the request itself must change
│   ├── Invalid        a value, file or message is wrong in itself
│   ├── Unknown        no such thing, or none that you may see
│   ├── Forbidden      you may not
│   └── Taken          it exists already, or somebody else holds it
├── Unavailable        a real system is away: retry with back-off
├── Partial            some rows are done; `rejected` and `later` say which are not
└── Corrupt            the bytes lie: count them, set them aside, never guess

Anything else that is raised is a bug and must crash.
"""

from collections.abc import Sequence
from typing import ClassVar


class BedError(Exception):
    """The root: a stable `code`, a message with values and units, and a `hint` at what to do."""

    code: ClassVar[str] = "error"

    def __init__(self, message: str, *, hint: str = "") -> None:
        """message: what is wrong and where, with the value.  hint: what would be right."""
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class Refused(BedError):
    """Asking again will not help: what is asked must change."""

    code = "refused"


class Invalid(Refused):
    """A value, a file or a message is wrong in itself."""

    code = "invalid"


class Unknown(Refused):
    """There is no such thing, or none that the asker may see: both answer alike."""

    code = "unknown"


class Forbidden(Refused):
    """The credential does not cover this."""

    code = "forbidden"


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
    """The bytes are not what they claim to be."""

    code = "corrupt"


def first_of(group: BaseExceptionGroup[BedError]) -> BedError:
    """The first error in a group, however deep."""
    one = group.exceptions[0]
    return first_of(one) if isinstance(one, BaseExceptionGroup) else one
