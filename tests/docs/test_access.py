"""The page on access is what the policy and the routes say."""

from tests.probes import matrix


def test_the_page_on_access_is_up_to_date() -> None:
    assert matrix.PAGE.read_text(encoding="utf-8") == matrix.page(), "python -m tests.probes.matrix"
