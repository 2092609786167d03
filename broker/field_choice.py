"""Parts of a file that are of one of several kinds: the field that is there says which.  Pure.

Used with pydantic's tagged unions.  A tag is the class's name in pointed brackets, which
`yaml_document` leaves out of the paths that it prints.
"""

from collections.abc import Mapping
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
            raise ValueError(f"say which {noun} this is: {names}")
        if len(given) > 1:
            raise ValueError(f"`{given[0]}` and `{given[1]}` exclude one another; leave one out")
        return value

    return BeforeValidator(validate)
