"""The report of `testbed access`: readers of other organisations before the own ones."""

import io

import pytest

from broker.responses.access import AccessResponse, HttpReadsResponse, PossibleReadResponse
from testbed.client import access
from testbed.terminal.screen import Screen


def right(organisation: str, principal: str, **changed: object) -> dict[str, object]:
    example = PossibleReadResponse.example()
    return example | {"organisation": organisation, "principal": principal} | changed


def report(own: int) -> AccessResponse:
    example = AccessResponse.example()
    read = HttpReadsResponse.example()
    example["could"] = [
        *(right("factory", f"engineer-{number}", grant=None) for number in range(own)),
        right("company", "cora"),
    ]
    example["did"]["http"] = [read | {"organisation": "factory", "principal": "fay"}, read]
    return AccessResponse.model_validate(example)


def printed(*, whole: bool, width: int = 200) -> str:
    file = io.StringIO()
    access.print_report(report(33), Screen(file=file, width=width), whole=whole)
    return file.getvalue()


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_one_reader_of_another_organisation_stands_before_33_own_ones(width):
    text = printed(whole=False, width=width)
    assert "cora" in "".join(text.splitlines(keepends=True)[:14])
    assert "engineer-1" not in text
    assert "and of factory itself: 33 persons, 1 stream (33 rows, with --all)" in text
    assert "and of factory itself: 1 reader (1 row, with --all)" in text


def test_all_rows_are_printed_on_demand():
    text = printed(whole=True)
    assert text.index("cora") < text.index("engineer-0") < text.index("engineer-32")
    assert "--all" not in text
    assert "fay" in text
