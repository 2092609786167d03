"""Checks of the words where pydantic reads: settings, files and bodies."""

from collections.abc import Callable
from typing import Any

from pydantic import AfterValidator

from broker.errors import BedError


def validated_by(check: Callable[[Any], object]) -> AfterValidator:
    """A check of ours as a field's: the value stays, a refusal becomes pydantic's ValueError."""

    def validate(value: Any) -> Any:
        try:
            check(value)
        except BedError as exc:
            raise ValueError(str(exc)) from exc
        return value

    return AfterValidator(validate)
