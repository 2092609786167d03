"""The form of a table file: as its owner writes it down, where a guess would not do.

Every field that is left out is guessed from the file.
"""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from broker import yaml_document
from broker.errors import Invalid
from broker.pydantic_checks import validated_by
from broker.time_expressions import checked_zone

MOST_COLUMNS = 1_000
MOST_NAME = 200
MOST_BYTES = 64 * 1024


class DecimalSign(StrEnum):
    """The sign before the decimals of a number."""

    POINT = "."
    COMMA = ","


ColumnName = Annotated[str, Field(min_length=1, max_length=MOST_NAME)]


class TableForm(BaseModel):
    """The form of a table file, as far as it is said."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    delimiter: str | None = Field(
        default=None, min_length=1, max_length=1, description="sign between two cells"
    )
    decimal: DecimalSign | None = Field(default=None, description="decimal sign: `.` or `,`")
    encoding: str | None = Field(
        default=None, max_length=40, description="encoding of the text, such as cp1252"
    )
    header: int | None = Field(
        default=None, ge=0, lt=2**31, description="line of the column names; 0 for none"
    )
    time: ColumnName | tuple[ColumnName, ColumnName] | None = Field(
        default=None, description="column of the time, or those of date and time"
    )
    time_format: str | None = Field(
        default=None,
        max_length=100,
        description="form of the time: s, ms, us or ns since 1970, `seconds` since the start, or a"
        " pattern as of strptime, such as %d.%m.%Y %H:%M:%S",
    )
    zone: Annotated[str, validated_by(checked_zone)] = Field(
        default="UTC", max_length=60, description="zone of times that name none"
    )
    name: ColumnName | None = Field(
        default=None, description="column of the signal's name, in a table of one value a row"
    )
    value: ColumnName | None = Field(
        default=None, description="column of the value in such a table"
    )
    labels: dict[ColumnName, ColumnName] | None = Field(
        default=None,
        max_length=2,
        description="`anomaly` or `changepoint` -> the column that says it",
    )
    signals: dict[ColumnName, str] | None = Field(
        default=None,
        max_length=MOST_COLUMNS,
        description="columns to play, each with the name of its signal (default: all with numbers)",
    )


def load(path: Path) -> TableForm:
    """Read the form from a YAML file; raises Unknown, Invalid."""
    return read(
        yaml_document.read_text(
            path, what="form of a table", most_bytes=MOST_BYTES, hint="such as delimiter: ';'"
        ),
        str(path),
    )


def read(text: str, name: str) -> TableForm:
    """Read the form from YAML; name: stands for the file in errors.  Raises Invalid."""
    document = yaml_document.parse(text, name, holds="form of a table", example="delimiter: ';'")
    mistakes = list(document.mistakes)
    try:
        form = TableForm.model_validate(document.value)
    except ValidationError as exc:
        mistakes += document.mistakes_of(exc, lambda _: list(TableForm.model_fields), {})
        raise yaml_document.listed(name, mistakes, document="form of a table") from exc
    if mistakes:
        raise yaml_document.listed(name, mistakes, document="form of a table")
    if (form.name is None) != (form.value is None):
        raise Invalid(
            f"{name}: `name` and `value` belong together",
            hint="a table of one value a row has both columns",
        )
    return form
