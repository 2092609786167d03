"""Parts of a file that are of one of several kinds: the field that is there says which.  Pure.

Used with pydantic's tagged unions.  A tag is the class's name in pointed brackets, which
`yaml_document` leaves out of the paths that it prints.
"""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, BeforeValidator


def chosen(fields: Any, tags: Mapping[str, str]) -> str | None:
    """The tag of the member of a union that a value is meant to be, None where it is none.

    tags: name of the field that tells a member -> the member's tag.
    """
    if isinstance(fields, BaseModel):
        return f"<{type(fields).__name__}>"
    given = [tags[name] for name in tags if isinstance(fields, dict) and name in fields]
    return given[0] if given else None


LEAST_LIKENESS = 0.7
"""Of a name to the one that may be meant, 0 to 1: fields that are right are less like another."""


def meant(given: Iterable[object], names: Mapping[str, object]) -> str:
    """The end of a sentence that names the field which one of those given may stand for.

    Empty where none is like any of `names`.
    """
    for name in given:
        if near := difflib.get_close_matches(str(name), list(names), 1, LEAST_LIKENESS):
            return f"; did you mean {near[0]!r}?"
    return ""


def has_one(tags: Mapping[str, str], noun: str) -> BeforeValidator:
    """Make a validator that refuses none and several of the fields that say what a part is.

    noun: of the part, such as `machine`.
    """
    names = f"{', '.join(list(tags)[:-1])} or {list(tags)[-1]}"

    def validate(value: Any) -> Any:
        if isinstance(value, BaseModel):
            return value
        if not isinstance(value, dict):
            raise ValueError(f"it holds fields: {names}, …")
        given = [name for name in tags if name in value]
        if not given:
            raise ValueError(f"say which {noun} this is: {names}{meant(value, tags)}")
        if len(given) > 1:
            raise ValueError(f"`{given[0]}` and `{given[1]}` exclude one another; leave one out")
        return value

    return BeforeValidator(validate)
