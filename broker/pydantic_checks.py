"""Uses checks of the broker room as pydantic validators, in settings, files and bodies."""

from collections.abc import Callable
from typing import Any

from pydantic import AfterValidator

from broker.errors import BedError


def validated_by(check: Callable[[Any], object]) -> AfterValidator:
    """Make a field validator of a check: the value stays, a BedError becomes a ValueError."""

    def validate(value: Any) -> Any:
        try:
            check(value)
        except BedError as exc:
            raise ValueError(str(exc)) from exc
        return value

    return AfterValidator(validate)
