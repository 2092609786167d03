"""A name that is bound to nothing is told with where its like is bound."""

import pytest

from broker.errors import Unknown
from broker.namespace import StreamAddress
from testbed_sdk import connection
from testbed_sdk.settings import PrototypeSettings

RIG = StreamAddress.parse("local/rig/measured")


@pytest.mark.parametrize(
    ("set_by_a_run", "hint"),
    [
        ({}, "set TESTBED_INPUTS=rigg=organisation/…/stream"),
        ({"clock": "run"}, "`inputs:` of the prototype in the scenario has rig"),
        ({"run": "mark"}, "`inputs:` of the prototype in the scenario has rig"),
    ],
)
def test_a_name_that_is_not_bound_says_where_to_bind_it(set_by_a_run, hint):
    settings = PrototypeSettings(inputs={"rig": RIG}, **set_by_a_run)
    assert connection.bound(settings.inputs, "rig", "input") == RIG
    with pytest.raises(Unknown, match="no input is called 'rigg'; bound are: rig") as refused:
        connection.bound(settings.inputs, "rigg", "input", is_in_run=settings.is_in_run)
    assert refused.value.hint.startswith(hint)
