"""What is wrong with a value is said in our words, whatever model refuses it."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, SecretStr, ValidationError

import testbed_api.http.routes.access_report
import testbed_api.http.routes.enrolment
import testbed_api.http.routes.listings
import testbed_api.http.routes.pauses
import testbed_api.http.routes.retention
import testbed_api.http.routes.status  # noqa: F401 - imported, so that their forms are known
from broker import pydantic_checks
from broker.errors import Invalid
from broker.pydantic_checks import PREDICATES, validated_by
from broker.responses.base import ApiResponse
from broker.settings import Settings
from gateway.mapping import file as mapping_file
from testbed_api.http import grant_forms, schemas
from testbed_api.settings import ServerSettings

PYDANTICS_OWN = ("Input should", "Field required", "Extra inputs", "should have", "unable to parse")


class Mode(StrEnum):
    """Words of an enumeration."""

    FAST = "fast"
    SLOW = "slow"


class Part(BaseModel):
    """A model inside another."""

    model_config = ConfigDict(extra="forbid")

    size: int = 1


def _is_even(value: int) -> None:
    if value % 2:
        raise Invalid(f"{value} is odd", hint="write an even one")


class Form(BaseModel):
    """A field for each kind of error that our models can give."""

    model_config = ConfigDict(extra="forbid")

    needed: str = "x"
    whole: int = 1
    number: float = 1.0
    finite: Annotated[float, Field(allow_inf_nan=False)] = 1.0
    flag: bool = True
    least: Annotated[int, Field(ge=1)] = 1
    most: Annotated[int, Field(le=9)] = 1
    above: Annotated[float, Field(gt=0)] = 1
    below: Annotated[float, Field(lt=9)] = 1
    short: Annotated[str, Field(min_length=2)] = "xx"
    long: Annotated[str, Field(max_length=3)] = ""
    secret: Annotated[SecretStr, Field(max_length=3)] = SecretStr("")
    pattern: Annotated[str, Field(pattern=r"^\d+$")] = "1"
    mode: Mode = Mode.FAST
    word: Literal["", "none"] = ""
    few: Annotated[list[int], Field(min_length=1)] = [1]
    many: Annotated[tuple[int, ...], Field(max_length=1)] = ()
    names: dict[str, int] = {}
    part: Part = Part()
    choice: int | Part = 1
    at: datetime | None = None
    zoned: AwareDatetime | None = None
    file: Path | None = None
    even: Annotated[int, validated_by(_is_even)] = 2


TABLE: Mapping[str, tuple[dict[str, Any], str]] = {
    "a word for a whole number": ({"whole": "many"}, "it is no whole number; write one such as 12"),
    "a fraction": ({"whole": 1.5}, "it is no whole number; write one such as 12"),
    "null": ({"whole": None}, "it is no whole number; write one such as 12"),
    "a word for a number": ({"number": "hot"}, "it is no number; write one such as 2.5"),
    "infinity": ({"finite": float("inf")}, "it is no finite number"),
    "no boolean": ({"flag": "perhaps"}, "it is neither true nor false"),
    "too small": ({"least": 0}, "it must be 1 or more"),
    "too large": ({"most": 10}, "it must be 9 or less"),
    "not above": ({"above": 0}, "it must be greater than 0"),
    "not below": ({"below": 9}, "it must be less than 9"),
    "no text": ({"needed": 5}, "it is no text"),
    "too short": ({"short": "x"}, "it is too short; the least length is 2"),
    "too long": ({"long": "xxxx"}, "it is too long; the greatest length is 3"),
    "a secret too long": ({"secret": "xxxx"}, "it is too long; the greatest length is 3"),
    "another pattern": ({"pattern": "x"}, r"it must match ^\d+$"),
    "none of an enumeration": ({"mode": "idle"}, "it must be one of 'fast' or 'slow'"),
    "none of some words": ({"word": "some"}, "it must be one of '' or 'none'"),
    "no list": ({"few": 5}, "it is no list"),
    "too few": ({"few": []}, "it has too few items; the least number is 1"),
    "too many": ({"many": (1, 2)}, "it has too many items; the greatest number is 1"),
    "no object": ({"names": 5}, "it is no object; fields with their values belong here"),
    "no part": ({"part": "x"}, "it is no object; fields with their values belong here"),
    "more than is known": ({"more": 1}, "it is not known"),
    "no instant": (
        {"at": "soon"},
        "it is no instant; write one such as 2026-03-01T08:00:00Z",
    ),
    "no offset": (
        {"zoned": "2026-03-01T08:00:00"},
        "it is an instant without Z or an offset at its end",
    ),
    "no path": ({"file": 5}, "it is no path of a file"),
    "a check of ours": ({"even": 3}, "3 is odd (write an even one)"),
}


def errors(model: type[BaseModel], values: object) -> list[Any]:
    with pytest.raises(ValidationError) as caught:
        model.model_validate(values)
    return caught.value.errors()


@pytest.mark.parametrize("kind", TABLE)
def test_a_value_that_is_refused_is_told_in_our_words(kind: str) -> None:
    values, sentence = TABLE[kind]
    assert [pydantic_checks.sentence(error) for error in errors(Form, values)] == [sentence]


def test_what_is_missing_is_told() -> None:
    class Needy(BaseModel):
        needed: str

    assert [pydantic_checks.sentence(error) for error in errors(Needy, {})] == ["it is missing"]


def test_each_choice_of_a_union_says_what_it_takes() -> None:
    sentences = [pydantic_checks.sentence(error) for error in errors(Form, {"choice": "x"})]
    assert sentences == [
        "it is no whole number; write one such as 12",
        "it is no object; fields with their values belong here",
    ]


def test_a_setting_is_told_without_its_value() -> None:
    with pytest.raises(Invalid) as caught:
        ServerSettings(api_port="s3cret", tls="s3cret")
    assert caught.value.message == (
        "a setting is not right: TESTBED_API_PORT is no whole number; write one such as 12;"
        " TESTBED_TLS must be one of '',"
        " 'none' or 'development'"
    )


def test_a_field_that_is_not_known_names_the_one_that_may_be_meant() -> None:
    assert pydantic_checks.unknown_field("speedd", ["name", "speed"]) == (
        "there is no such field; did you mean 'speed'?"
    )
    assert pydantic_checks.unknown_field("x", ["name", "speed"]) == (
        "there is no such field; known are name, speed"
    )
    assert pydantic_checks.unknown_field("x", []) == "it is not known"


def test_the_fields_at_a_path_are_those_of_the_model_there() -> None:
    assert pydantic_checks.fields_at(Form, ["part"]) == ["size"]
    assert pydantic_checks.fields_at(grant_forms.RequestForm, ["equipment", 0]) == [
        "equipment",
        "space",
    ]
    assert "from" in pydantic_checks.fields_at(grant_forms.RequestForm, [])
    assert pydantic_checks.fields_at(Form, ["names", "x"]) == []


JUNK: list[object] = [
    None,
    True,
    -1,
    0,
    10**30,
    1.5,
    float("nan"),
    float("inf"),
    "",
    "x",
    "x" * 5_000,
    "\ud800",
    b"\xff",
    "2026-13-01",
    [],
    ["x"],
    [[]],
    list(range(2_000)),
    {},
    {"x": 1},
    {1: 2},
    object(),
]


def models() -> Iterator[type[BaseModel]]:
    for base in (schemas.Form, ApiResponse, Settings, mapping_file._Strict):
        waiting: list[type[BaseModel]] = [base]
        while waiting:
            model = waiting.pop()
            waiting += model.__subclasses__()
            if model.model_fields:
                yield model


@pytest.mark.parametrize("model", sorted(models(), key=lambda model: model.__qualname__))
def test_every_kind_of_error_of_our_models_has_words_of_its_own(model: type[BaseModel]) -> None:
    known = {*PREDICATES, *pydantic_checks.OF_CHECKS}
    names = [field.alias or name for name, field in model.model_fields.items()]
    for junk in JUNK:
        whole = () if issubclass(model, Settings) else (junk,)
        for values in (dict.fromkeys(names, junk), {"x": junk}, *whole):
            try:
                model.__pydantic_validator__.validate_python(values)
            except (ValidationError, Invalid) as exc:  # settings word it themselves
                cause = exc if isinstance(exc, ValidationError) else exc.__cause__
                refused = cause.errors() if isinstance(cause, ValidationError) else []
            else:
                continue
            assert {error["type"] for error in refused} <= known
            sentences = [pydantic_checks.sentence(error) for error in refused]
            assert not [each for each in sentences for own in PYDANTICS_OWN if own in each]
