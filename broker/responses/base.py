"""Base class of the API's answers: frozen, with aliases, and with an example of itself."""

from collections.abc import Sequence
from types import UnionType
from typing import Annotated, Any, Self, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo

AT = "2026-11-23T12:00:00.000000000Z"
LATER = "2026-11-23T12:00:05.000000000Z"
STREAM = "factory/pump-rig/rig"
PURPOSE = "to find out why the pump stalls"
IDEMPOTENCY_KEY = "Idempotency-Key"
"""Header with which a POST is carried out once, however often it is sent."""

_INSTANT = "RFC 3339 in UTC, with nanoseconds"
Instant = Annotated[str, Field(description=_INSTANT, examples=[AT])]
"""An instant as text, such as 2026-11-23T12:00:00.000000000Z."""
OptionalInstant = Annotated[str | None, Field(description=_INSTANT, examples=[AT])]
"""An instant as text, or null."""


class ApiResponse(BaseModel):
    """An answer of the API, or a part of one.

    A field without a value is null; it is left out only where its description says so.  A reader
    passes over fields that it does not know, so that an older client reads a newer server.  Its
    validator is built when it is first used: a command knows a hundred answers and reads one.
    """

    model_config = ConfigDict(
        frozen=True, populate_by_name=True, serialize_by_alias=True, defer_build=True
    )

    @classmethod
    def extending(cls, base: "ApiResponse", **more: Any) -> Self:
        """An answer with the fields of another one, and more."""
        return cls(**dict(base), **more)

    def as_json(self) -> dict[str, Any]:
        """The answer as JSON, as the API sent it: a field that it left out is left out here."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)

    @classmethod
    def example(cls) -> dict[str, Any]:
        """An example as JSON: the first example of each field, of a nested model its own."""
        return {field.alias or name: _example_of(field) for name, field in cls.model_fields.items()}


class PageResponse(ApiResponse):
    """A page of a listing; its subclasses have the items of one noun, and the form of `next`."""

    items: Sequence[ApiResponse]
    next: Annotated[str | int | None, Field(description="`cursor` of the next page", examples=[5])]


def _example_of(field: FieldInfo) -> Any:
    """The example of one field; raises ValueError for a field that has none."""
    if field.examples:
        return field.examples[0]
    annotation: Any = field.annotation
    if get_origin(annotation) is UnionType:
        annotation = get_args(annotation)[0]
    if isinstance(annotation, type) and issubclass(annotation, ApiResponse):
        return annotation.example()
    if get_origin(annotation) is list and issubclass(get_args(annotation)[0], ApiResponse):
        return [get_args(annotation)[0].example()]
    raise ValueError(f"a field of type {annotation} has no example")
