"""Client ids that name their process, and which process replaces which."""

import pytest

from broker.backends.nats import auth_callout
from broker.backends.nats.auth_callout import ConnectRequest
from broker.namespace import EquipmentAddress
from broker.process_identity import ProcessIdentity, RunningProcess, gateway_role

PRESS = EquipmentAddress("factory", "press")
ROLE = gateway_role("ada", PRESS, "live")
FIRST = ProcessIdentity(host="press-pc.factory.example", place="0f3a9c11d2e4", started_ms=1_000)


def running(identity: ProcessIdentity, address: str = "10.0.0.7") -> RunningProcess:
    process = RunningProcess.of_connection(
        identity.client_id(ROLE), address=address, since_ns=5, connection="S/1"
    )
    assert process is not None
    return process


@pytest.mark.parametrize("takes_over", [False, True])
@pytest.mark.parametrize("host", ["press-pc", "a.b.c", "", "ä", "x" * 99, "--", "run-1"])
def test_a_client_id_names_its_role_and_its_process(host: str, *, takes_over: bool) -> None:
    for role in (ROLE, gateway_role("ada", EquipmentAddress("a--b", "c"), "run-1")):
        identity = ProcessIdentity(
            host=host, place="0" * 12, started_ms=2**40, takes_over=takes_over
        )
        client_id = identity.client_id(role)
        process = RunningProcess.of_connection(client_id, address="a", since_ns=1, connection="c")
        assert process is not None
        assert process.role == role
        assert process.identity.place == identity.place
        assert process.identity.started_ms == identity.started_ms
        assert process.identity.takes_over is takes_over
        assert auth_callout.is_bound(
            ConnectRequest(principal="ada", secret="s", client_id=client_id)
        )
        assert "." not in client_id


@pytest.mark.parametrize("client_id", ["ada", "ada--gateway", f"{ROLE}--x-1", "a--b--c" * 100, ""])
def test_other_client_ids_name_no_process(client_id: str) -> None:
    assert RunningProcess.of_connection(client_id, address="a", since_ns=1, connection="c") is None


def test_a_space_has_a_gateway_of_its_own() -> None:
    in_run = running(FIRST)
    assert in_run.is_gateway_of("ada", PRESS)
    assert not in_run.is_gateway_of("ada", EquipmentAddress("factory", "pres"))
    assert not in_run.is_gateway_of("bob", PRESS)
    assert gateway_role("ada", PRESS, "run-1") != gateway_role(
        "ada", EquipmentAddress("factory", "press-run-1"), "live"
    )


def test_a_process_replaces_itself_and_those_that_ran_in_its_place() -> None:
    again = ProcessIdentity(host="renamed", place=FIRST.place, started_ms=1_001)
    copy = ProcessIdentity(host=FIRST.host, place="9" * 12, started_ms=9_999)
    assert running(FIRST).is_replaced_by(running(FIRST))
    assert running(FIRST).is_replaced_by(running(again))
    assert not running(again).is_replaced_by(running(FIRST))
    assert not running(FIRST).is_replaced_by(running(copy))
    assert not running(FIRST).is_replaced_by(running(again, address="10.0.0.8"))
