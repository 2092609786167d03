"""Uses checks of the broker room as pydantic validators, and words its errors for people.

All sentences about values that a model refuses are here: of a body or a query over HTTP, of a
mapping, of a setting, and of an answer.  None of pydantic's own words reaches anybody.
"""

import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ValidationError

from broker.errors import BedError

_WHOLE = "is no whole number; write one such as 12"
_NUMBER = "is no number; write one such as 2.5"
_BOOLEAN = "is neither true nor false"
_TEXT = "is no text"
_LIST = "is no list"
_FIELDS = "is no object; fields with their values belong here"
_INSTANT = "is no instant; write one such as 2026-03-01T08:00:00Z"
_DATE = "is no date; write one such as 2026-03-01"
_TIME = "is no time of day; write one such as 08:00:00"
_DURATION = "is no duration in seconds"

OTHER = "is not of the right form"
"""Of a kind of error that has no words of its own: none of our models gives it."""
PREDICATES: Mapping[str, str] = {
    "missing": "is missing",
    "extra_forbidden": "is not known",
    "none_required": "must be null or left out",
    "int_parsing": _WHOLE,
    "int_type": _WHOLE,
    "int_from_float": _WHOLE,
    "int_parsing_size": "is a whole number with too many digits",
    "float_parsing": _NUMBER,
    "float_type": _NUMBER,
    "finite_number": "is no finite number",
    "bool_parsing": _BOOLEAN,
    "bool_type": _BOOLEAN,
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be {ge} or more",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be {le} or less",
    "multiple_of": "must be a multiple of {multiple_of}",
    "string_type": _TEXT,
    "string_sub_type": _TEXT,
    "string_unicode": "is no text in UTF-8",
    "string_not_ascii": "must be in ASCII",
    "string_too_short": "is too short; the least length is {min_length}",
    "string_too_long": "is too long; the greatest length is {max_length}",
    "string_pattern_mismatch": "must match {pattern}",
    "bytes_type": _TEXT,
    "bytes_too_short": "is too short; the least length is {min_length}",
    "bytes_too_long": "is too long; the greatest length is {max_length}",
    "enum": "must be one of {expected}",
    "literal_error": "must be one of {expected}",
    "union_tag_invalid": "must be one of {expected_tags}",
    "union_tag_not_found": "lacks the field {discriminator}",
    "list_type": _LIST,
    "tuple_type": _LIST,
    "set_type": _LIST,
    "frozen_set_type": _LIST,
    "iterable_type": _LIST,
    "is_instance_of": _LIST,
    "sequence_str": _LIST,
    "too_short": "has too few items; the least number is {min_length}",
    "too_long": "has too many items; the greatest number is {max_length}",
    "dict_type": _FIELDS,
    "mapping_type": _FIELDS,
    "model_type": _FIELDS,
    "model_attributes_type": _FIELDS,
    "dataclass_type": _FIELDS,
    "invalid_key": "must have a name that is a text",
    "datetime_type": _INSTANT,
    "datetime_parsing": _INSTANT,
    "datetime_from_date_parsing": _INSTANT,
    "timezone_aware": "is an instant without Z or an offset at its end",
    "date_type": _DATE,
    "date_parsing": _DATE,
    "date_from_datetime_parsing": _DATE,
    "time_type": _TIME,
    "time_parsing": _TIME,
    "time_delta_type": _DURATION,
    "time_delta_parsing": _DURATION,
    "path_type": "is no path of a file",
    "url_type": "is no URL",
    "url_parsing": "is no URL",
    "uuid_type": "is no UUID",
    "uuid_parsing": "is no UUID",
    "json_type": "is no JSON",
    "json_invalid": "is no JSON",
}
"""The fault of a value, by pydantic's type of error: the end of a sentence about the value."""
OF_CHECKS = frozenset({"value_error", "assertion_error"})


def settings_sentence(error: ValidationError, *, prefix: str) -> str:
    """Say which settings are wrong and why, without their values.

    prefix: of the variables' names, such as TESTBED_.
    """
    faults = []
    for each in error.errors(include_url=False, include_input=False):
        name = f"{prefix}{'_'.join(map(str, each['loc'])).upper()}"
        said = check_sentence(each)
        faults.append(f"{name} is not right: {said}" if said else f"{name} {predicate(each)}")
    return "; ".join(faults)


def sentence(error: Mapping[str, Any]) -> str:
    """Say what is wrong with a value that has been named: the words of its check, or ours.

    error: one of pydantic's `errors()`.
    """
    return check_sentence(error) or f"it {predicate(error)}"


def first_sentence(error: ValidationError) -> str:
    """Say what is wrong with the first value of a document, after the path of its field."""
    first = error.errors()[0]
    field = ".".join(map(str, first["loc"])) or "the whole"
    return f"{field}: {sentence(first)}"


def check_sentence(error: Mapping[str, Any]) -> str:
    """The sentence of a check of ours that refused the value; empty if pydantic refused it."""
    return str(error["ctx"]["error"]) if error["type"] in OF_CHECKS else ""


def predicate(error: Mapping[str, Any]) -> str:
    """The fault as the end of a sentence about the value: `must be 500 or less`."""
    kind, context = error["type"], error.get("ctx", {})
    if context.get("field_type") == "Value":  # a secret or a sequence: both have a length
        kind = f"string_{kind}"
    bounds = {
        name: f"{value:g}" if isinstance(value, float) else value for name, value in context.items()
    }
    return PREDICATES.get(kind, OTHER).format_map(bounds)


def unknown_field(name: str, known: Sequence[str]) -> str:
    """Say that there is no such field, with the one that may be meant or all that are known."""
    near = difflib.get_close_matches(name, known, 1)
    if near:
        return f"there is no such field; did you mean {near[0]!r}?"
    return f"there is no such field; known are {', '.join(known)}" if known else "it is not known"


def fields_at(model: type[BaseModel], path: Sequence[str | int]) -> list[str]:
    """The names of the fields that a model knows at a path below it; none if that is no model."""
    for step in path:
        if isinstance(step, int):
            continue
        named = (each for name, each in model.model_fields.items() if step in {name, each.alias})
        field = next(named, None)
        inner = None if field is None else _model_in(field.annotation)
        if inner is None:
            return []
        model = inner
    return sorted(field.alias or name for name, field in model.model_fields.items())


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The first model in an annotation such as `tuple[Form, ...] | None`."""
    if get_origin(annotation) is None:
        is_model = isinstance(annotation, type) and issubclass(annotation, BaseModel)
        return annotation if is_model else None
    return next(filter(None, map(_model_in, get_args(annotation))), None)


def validated_by(check: Callable[[Any], object]) -> AfterValidator:
    """Make a field validator of a check: the value stays, a BedError becomes a ValueError."""

    def validate(value: Any) -> Any:
        try:
            check(value)
        except BedError as exc:
            raise ValueError(str(exc)) from exc
        return value

    return AfterValidator(validate)
