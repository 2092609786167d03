"""A swarm's documents, states and addresses: nothing is dropped, and no state is unknown."""

import json
import subprocess
import sys
import zipfile
from ipaddress import IPv4Network

import pytest

from broker.clock import NS_PER_S, text_of
from broker.deployments.life import EndCause
from broker.errors import Invalid
from broker.prototypes.manifest import MIB, PrototypeResources
from broker.settings import Address
from testbed_runner.port import ContainerSpec, ContainerState, EngineAway, ImageWanted
from testbed_runner.swarm import (
    canary,
    local_container,
    relay_archive,
    services,
    site_state,
    subnets,
    task_states,
)
from testbed_runner.swarm.services import RelayOrder, RelayWay, StoredFile
from testbed_runner.swarm.task_states import SwarmTask, TaskState

NOW_NS = 1_800_000_000 * NS_PER_S
DIGEST = f"sha256:{64 * 'a'}"
POOL = IPv4Network("10.131.0.0/16")
SPEC = ContainerSpec(
    deployment=12,
    site="site-1",
    image=ImageWanted(kind="archive", digest=DIGEST),
    command=("python", "prototype.py"),
    environment={"MODE": "fast", "TESTBED_API": "http://elsewhere"},
    files={"credential": b"watch-12.secret"},
    resources=PrototypeResources(memory=128 * MIB, cpu=0.25, pids=20, disk=8 * MIB, log=1 * MIB),
)
ORDER = RelayOrder(
    image=DIGEST,
    api=RelayWay(address=Address("testbed.example", 8600), certificate=""),
    broker=RelayWay(address=Address("testbed.example", 1883)),
    archive=StoredFile("c1", "relay"),
    authority=StoredFile("c2", "ca"),
)


def task_of(state: str, *, error: str = "", age_s: int = 0, **own: object) -> SwarmTask:
    """A task as the engine's API lists it."""
    created = text_of(NOW_NS - age_s * NS_PER_S)
    status = {"State": state, "Timestamp": created, "Message": "created", "Err": error}
    if own:
        status["ContainerStatus"] = own
    return SwarmTask.from_json(
        {"CreatedAt": created, "DesiredState": "running", "Status": status, "NodeID": "n1"}
    )


def program() -> dict:
    return services.program(
        SPEC, DIGEST, node="n1", network="net", secrets={"credential": StoredFile("s1", "secret")}
    )


def relay() -> dict:
    subnet = IPv4Network("10.131.16.0/28")
    return services.relay(
        SPEC, ORDER, subnet=subnet, networks=("net", "out"), constraints=("node.labels.edge==1",)
    )


# --- states ---------------------------------------------------------------------------------------


def test_every_state_of_a_task_is_one_of_a_container() -> None:
    documented = (
        "new allocated pending assigned accepted preparing ready starting running complete"
        " shutdown failed rejected remove orphaned"
    )
    assert [str(state) for state in TaskState] == documented.split()
    assert set(task_states.CONTAINER_STATES) == set(TaskState)
    for state in TaskState:
        container = task_states.container_of(12, task_of(state), NOW_NS)
        assert container.state is task_states.CONTAINER_STATES[state]
        assert container.pulling is (state is TaskState.PREPARING)


@pytest.mark.parametrize(
    ("state", "error", "age_s", "sentence"),
    [
        ("pending", "", 3, "the swarm looks for a node"),
        ("pending", "no suitable node (1 node not available)", 25, "for 25 s: no suitable node"),
        ("new", "", 25, "no address is free for it in its network, for 25 s"),
        ("pending", "could not find an available IP", 25, "no address is free"),
        ("preparing", "", 90, "its node has it: created"),
    ],
)
def test_a_task_that_does_not_run_says_what_it_waits_for(state, error, age_s, sentence) -> None:
    task = task_of(state, error=error, age_s=age_s)
    assert sentence in task_states.container_of(12, task, NOW_NS).detail


@pytest.mark.parametrize(
    ("state", "error", "cause"),
    [
        ("rejected", "No such image: sha256:abc", EndCause.IMAGE),
        ("rejected", 'exec: "watch": executable file not found in $PATH', EndCause.START),
        ("rejected", "invalid mount config", EndCause.SITE),
        ("orphaned", "", EndCause.SITE),
        ("failed", "task: non-zero exit (1)", None),
        ("complete", "", None),
        ("pending", "no suitable node", None),
    ],
)
def test_a_task_that_could_not_be_started_says_why(state, error, cause) -> None:
    failure = task_states.container_of(12, task_of(state, error=error), NOW_NS).failure
    assert (failure and failure.cause) == cause


def test_the_exit_code_is_that_of_a_container_that_was_there() -> None:
    ended = task_of("failed", ContainerID="c", ExitCode=137)
    assert task_states.container_of(12, ended, NOW_NS).exit_code == 137
    running = task_of("running", ContainerID="c", ExitCode=0)
    assert task_states.container_of(12, running, NOW_NS).exit_code is None
    assert task_states.container_of(12, task_of("shutdown"), NOW_NS).exit_code is None


def test_the_engine_of_its_node_is_ahead_of_the_swarm() -> None:
    state = {"Status": "exited", "StartedAt": "2026-12-01T12:00:00Z", "ExitCode": 137}
    state |= {"OOMKilled": True}
    running = task_states.container_of(12, task_of("running", ContainerID="c"), NOW_NS)
    refined = local_container.refined(running, {"State": state})
    assert (refined.state, refined.exit_code) == (ContainerState.ENDED, 137)
    assert refined.killed_by_memory
    paused = local_container.refined(running, {"State": state | {"Status": "paused"}})
    assert (paused.state, paused.exit_code) == (ContainerState.FROZEN, None)
    ended = task_states.container_of(12, task_of("failed", ContainerID="c", ExitCode=1), NOW_NS)
    late = local_container.refined(ended, {"State": state | {"Status": "running"}})
    assert late.state is ContainerState.ENDED


# --- documents ------------------------------------------------------------------------------------


@pytest.mark.parametrize("document", [program(), relay(), canary.service("site-1", DIGEST, ())])
def test_every_service_has_all_protections_in_its_document(document) -> None:
    task = document["TaskTemplate"]
    container = task["ContainerSpec"]
    assert container["ReadOnly"]
    assert container["Init"]
    assert container["User"] == "65534:65534"
    assert container["CapabilityDrop"] == ["ALL"]
    assert container["Privileges"]["NoNewPrivileges"]
    assert container["Privileges"]["Seccomp"] == {"Mode": "default"}
    assert {each["Name"]: each["Hard"] for each in container["Ulimits"]} == {
        "nofile": 1_024,
        "core": 0,
    }
    assert set(task["Resources"]["Limits"]) == {"NanoCPUs", "MemoryBytes", "Pids"}
    assert all(task["Resources"]["Limits"].values())
    assert task["LogDriver"]["Options"]["max-size"]
    assert "CapabilityAdd" not in container
    assert not [each for each in container.get("Mounts", []) if each["Type"] != "tmpfs"]


def test_a_program_is_limited_as_its_manifest_asks_and_is_in_its_network_alone() -> None:
    task = program()["TaskTemplate"]
    assert task["Resources"]["Limits"] == {
        "NanoCPUs": 250_000_000,
        "MemoryBytes": 136 * MIB,
        "Pids": 20,
    }
    assert task["Networks"] == [{"Target": "net"}]
    assert task["RestartPolicy"] == {"Condition": "none"}
    assert task["Placement"] == {"Constraints": ["node.id==n1"]}
    (secret,) = task["ContainerSpec"]["Secrets"]
    assert secret["File"] == {
        "Name": "/run/testbed/credential",
        "UID": "65534",
        "GID": "65534",
        "Mode": 0o400,
    }
    assert "watch-12.secret" not in json.dumps(program())
    environment = task["ContainerSpec"]["Env"]
    assert "TESTBED_API=http://relay:8600" in environment
    assert "MODE=fast" in environment
    assert not [each for each in environment if "elsewhere" in each]


def test_a_relay_reserves_for_its_program_and_listens_in_its_network() -> None:
    task = relay()["TaskTemplate"]
    assert task["Resources"]["Reservations"]["MemoryBytes"] == 200 * MIB
    assert task["Placement"] == {"Constraints": ["node.labels.edge==1"]}
    assert task["Networks"] == [{"Target": "net", "Aliases": ["relay"]}, {"Target": "out"}]
    ((_, order),) = [each.split("=", 1) for each in task["ContainerSpec"]["Env"]]
    assert json.loads(order) == {
        "listen": {"api": 8600, "broker": 1883},
        "subnet": "10.131.16.0/28",
        "api": {"host": "testbed.example", "port": 8600, "name": ""},
        "broker": {"host": "testbed.example", "port": 1883, "name": None},
        "ca": "/ca.pem",
    }
    names = [each["File"]["Name"] for each in task["ContainerSpec"]["Configs"]]
    assert names == ["/relay.pyz", "/ca.pem"]


def test_the_relays_program_runs_with_python_alone(tmp_path) -> None:
    archive = tmp_path / "relay.pyz"
    archive.write_bytes(relay_archive.packed())
    assert archive.read_bytes() == relay_archive.packed()
    assert archive.stat().st_size < 100_000
    with zipfile.ZipFile(archive) as opened:
        assert len(opened.namelist()) == len(relay_archive.MODULES) + 1
    done = subprocess.run(  # noqa: S603 - ours; isolated, and without site packages
        [sys.executable, "-I", "-S", str(archive)], check=False, capture_output=True, text=True
    )
    assert done.stderr.strip().endswith("KeyError: 'RELAY_ORDER'")


# --- addresses ------------------------------------------------------------------------------------


def test_each_deployment_has_a_subnet_that_nobody_else_has() -> None:
    used = [subnets.outer(POOL), IPv4Network("10.0.0.0/8"), IPv4Network("172.17.0.0/16")][::2]
    for _ in range(40):
        subnet = subnets.free_inner(POOL, used)
        assert not [each for each in used if each.overlaps(subnet)]
        used.append(subnet)


def test_a_pool_that_is_full_says_so() -> None:
    small = subnets.checked_pool("10.131.0.0/19")
    used = list(IPv4Network("10.131.16.0/20").subnets(new_prefix=28))
    with pytest.raises(EngineAway, match=r"all of the pool 10\.131\.0\.0/19 are in use"):
        subnets.free_inner(small, used)


@pytest.mark.parametrize("text", ["10.131.0.0/20", "10.131.0.1/16", "fd00::/64", "pool"])
def test_a_pool_that_is_none_or_too_small_is_refused(text) -> None:
    with pytest.raises(Invalid):
        subnets.checked_pool(text)


# --- nodes ----------------------------------------------------------------------------------------

MANAGER = {
    "ServerVersion": "20.10.24",
    "Architecture": "x86_64",
    "Swarm": {"ControlAvailable": True},
}


def node(number: int, *, availability: str = "active", **labels: str) -> dict:
    return {
        "ID": f"n{number}",
        "Spec": {"Availability": availability, "Labels": labels, "Role": "worker"},
        "Status": {"State": "ready"},
        "Description": {
            "Hostname": f"host-{number}",
            "Resources": {"NanoCPUs": 2 * 10**9, "MemoryBytes": 4 * 2**30},
        },
    }


def test_a_site_is_its_nodes_that_take_tasks_and_lack_nothing() -> None:
    nodes = [node(1), node(2, edge="1"), node(3, availability="drain", edge="1"), node(4, edge="1")]
    usable = site_state.usable(nodes, ["node.labels.edge==1", "node.role != manager"])
    assert [each["ID"] for each in usable] == ["n2", "n4"]
    state = site_state.of(MANAGER, usable, {"n2": "", "n4": "it lacks the seccomp profile"})
    assert state.takes_work
    assert (state.cpu, state.memory_bytes) == (2.0, 4 * 2**30)


@pytest.mark.parametrize(
    ("information", "nodes", "reason"),
    [
        ({}, [], "this engine manages no swarm"),
        (MANAGER, [], "no node of the swarm is active"),
        (MANAGER, [node(1)], "node host-1: it lacks the seccomp profile"),
    ],
)
def test_a_site_without_a_node_says_why(information, nodes, reason) -> None:
    state = site_state.of(information, nodes, {"n1": "it lacks the seccomp profile"})
    assert not state.takes_work
    assert state.reason.startswith(reason)


def test_a_canary_names_what_its_node_lacks() -> None:
    whole = dict.fromkeys(canary.PROTECTIONS, True)
    assert canary.verdict(json.dumps(whole).encode()) == ""
    lacking = json.dumps(whole | {"no_new_privileges": False}).encode()
    assert canary.verdict(lacking).startswith("it lacks no-new-privileges")
    assert "could not be tried: exec format error" in canary.verdict(b"exec format error")
    assert "could not be tried" in canary.verdict(json.dumps({"swap": True}).encode())
