"""The nouns of the registry: what they refuse, and what they keep."""

import pytest

from broker.batch import Kind
from broker.errors import Invalid
from broker.namespace import EquipmentAddress
from testbed_api.domain import access
from testbed_api.domain.equipment import Equipment, Organisation
from testbed_api.domain.holding import Holding

MILL = EquipmentAddress("factory", "mill")


def test_a_credential_is_proved_by_its_own_secret_alone():
    credential, kept = access.issued("ada", Holding(), 1)
    other, _ = access.issued("ada", Holding(), 1)
    assert kept.proves(credential.secret)
    assert not kept.proves(other.secret)
    assert not kept.proves("")
    assert credential.secret not in repr(kept)


@pytest.mark.parametrize("name", ["testbed-api", "Ada", "", "a/b", "a--b"])
def test_a_principal_that_is_reserved_or_no_id_gets_no_credential(name):
    with pytest.raises(Invalid, match="principal"):
        access.issued(name, Holding(), 1)


@pytest.mark.parametrize("name", ["a\nb", "a\x00b", "x" * 201])
def test_a_name_is_printable_and_short(name):
    with pytest.raises(Invalid, match="name"):
        Organisation("factory", name)
    with pytest.raises(Invalid, match="name"):
        Equipment(MILL, name, Kind.REAL)


def test_a_site_has_the_levels_of_isa_95():
    assert Equipment(MILL, "Mill", Kind.REAL, {"line": "3"}).site == {"line": "3"}
    with pytest.raises(Invalid, match="room"):
        Equipment(MILL, "Mill", Kind.REAL, {"room": "3"})
