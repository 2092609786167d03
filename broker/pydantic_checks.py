"""Uses checks of the broker room as pydantic validators, and words its errors for people."""

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import AfterValidator, ValidationError

from broker.errors import BedError

_SENTENCES: Mapping[str, str] = {
    "int_parsing": "is no whole number",
    "int_type": "is no whole number",
    "int_from_float": "is no whole number",
    "float_parsing": "is no number",
    "float_type": "is no number",
    "finite_number": "is no finite number",
    "bool_parsing": "is neither true nor false",
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be {ge} or more",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be {le} or less",
    "literal_error": "must be one of {expected}",
    "enum": "must be one of {expected}",
    "string_type": "is no text",
    "string_too_long": "must have {max_length} characters at most",
    "string_too_short": "must have {min_length} characters or more",
    "too_long": "must have {max_length} entries or characters at most",
    "too_short": "must have {min_length} entries or more",
    "path_type": "is no path",
    "missing": "is missing",
    "extra_forbidden": "is not known",
}
"""What is wrong with a value, by pydantic's type of error."""


def sentence(error: ValidationError, *, prefix: str) -> str:
    """Say which settings are wrong and why, in our words and without their values.

    prefix: of the variables' names, such as TESTBED_.
    """
    return "; ".join(
        f"{prefix}{'_'.join(map(str, each['loc'])).upper()} {_reason(each)}"
        for each in error.errors(include_url=False, include_input=False)
    )


def _reason(error: Mapping[str, Any]) -> str:
    if error["type"] == "value_error":
        return f"is not right: {error['ctx']['error']}"
    return words(error) or "is not right"


def words(error: Mapping[str, Any]) -> str:
    """Our words for one of pydantic's errors, without the value; empty for a type without any."""
    text = _SENTENCES.get(error["type"], "")
    return text.format_map(error.get("ctx", {}))


def validated_by(check: Callable[[Any], object]) -> AfterValidator:
    """Make a field validator of a check: the value stays, a BedError becomes a ValueError."""

    def validate(value: Any) -> Any:
        try:
            check(value)
        except BedError as exc:
            raise ValueError(str(exc)) from exc
        return value

    return AfterValidator(validate)
