"""The configuration of containers, and what Docker says of them in the words of the port."""

from pathlib import Path

import pytest

from broker.deployments.life import EndCause
from broker.prototypes.manifest import MIB, PrototypeResources
from testbed_runner.docker import container_config, seccomp, site, states
from testbed_runner.docker.container_config import FIRST_USER, ContainerOrder
from testbed_runner.docker.limit_watch import count_files, count_in
from testbed_runner.docker.states import STATES, DockerState
from testbed_runner.port import CannotStart, ContainerState


def order(**fields):
    return ContainerOrder(
        **{
            "site": "site-1",
            "deployment": 12,
            "image": "sha256:1",
            "image_config": {},
            "command": ("python", "prototype.py"),
            "environment": {"MODE": "fast"},
            "resources": PrototypeResources(memory=64 * MIB, disk=8 * MIB, pids=10, cpu=0.5),
            "secrets": Path("/run/x"),
        }
        | fields
    )


@pytest.mark.parametrize(
    ("wanted", "user"),
    [
        ("1000", "1000:65534"),
        ("1000:1001", "1000:1001"),
        ("1000:0", "1000:65534"),
        ("1000:staff", "1000:65534"),
        ("", f"{FIRST_USER + 12}:{FIRST_USER + 12}"),
        ("0", f"{FIRST_USER + 12}:{FIRST_USER + 12}"),
        ("00:5", f"{FIRST_USER + 12}:{FIRST_USER + 12}"),
        ("root", f"{FIRST_USER + 12}:{FIRST_USER + 12}"),
        ("node", f"{FIRST_USER + 12}:{FIRST_USER + 12}"),
        ("²", f"{FIRST_USER + 12}:{FIRST_USER + 12}"),
        (str(FIRST_USER + 13), f"{FIRST_USER + 12}:{FIRST_USER + 12}"),
        ("-1", f"{FIRST_USER + 12}:{FIRST_USER + 12}"),
    ],
)
def test_a_program_is_never_root_and_never_the_user_of_another_deployment(wanted, user):
    assert str(container_config.program_user(wanted, 12)) == user


def test_its_disk_counts_as_memory_and_it_has_no_swap():
    config = container_config.container_config(order())["HostConfig"]
    assert config["Memory"] == config["MemorySwap"] == 72 * MIB
    assert config["NanoCpus"] == 500_000_000
    assert config["PidsLimit"] == 11


def test_volumes_of_an_image_are_in_memory_with_a_size_and_none_lies_over_the_secrets():
    volumes = {
        "/data": {},
        "/run": {},
        f"{container_config.TMP}/": {},
        "/": {},
        "/run/testbed/": {},
    }
    config = container_config.container_config(order(image_config={"Volumes": volumes}))
    disks = config["HostConfig"]["Tmpfs"]
    assert set(disks) == {container_config.TMP, container_config.SHARED_MEMORY, "/data"}
    assert all(f"size={8 * MIB}" in each and "noexec" in each for each in disks.values())


def test_an_image_with_too_many_volumes_cannot_be_started():
    volumes = {f"/data/{number}": {} for number in range(11)}
    with pytest.raises(CannotStart) as raised:
        container_config.container_config(order(image_config={"Volumes": volumes}))
    assert raised.value.cause is EndCause.IMAGE


def test_every_state_of_docker_is_one_of_ours():
    assert set(STATES) == set(DockerState)


def test_a_time_of_docker_has_all_its_nanoseconds():
    assert states.time_ns("2026-12-01T13:27:50.4057176Z") == 1796131670405717600
    assert states.time_ns("2026-12-01T14:27:50+01:00") == 1796131670 * 10**9
    assert states.time_ns("0001-01-01T00:00:00Z") is None
    assert states.time_ns("soon") is None


def test_a_container_that_never_began_has_no_exit_code():
    inspected = {
        "State": {"Status": "exited", "StartedAt": "0001-01-01T00:00:00Z", "ExitCode": 0},
        "Config": {"Labels": {"testbed.deployment": "12"}},
    }
    container = states.container(inspected)
    assert [container.state, container.exit_code] == [ContainerState.ENDED, None]


def test_no_call_that_reaches_out_of_a_container_is_allowed():
    allowed = seccomp.ALLOWED.split()
    assert len(set(allowed)) == len(allowed)
    refused = (
        "mount umount2 unshare setns bpf io_uring_setup keyctl add_key ptrace perf_event_open"
        " kexec_load reboot init_module userfaultfd open_by_handle_at clock_settime sethostname"
        " pivot_root chroot syslog process_vm_readv pidfd_getfd socket clone clone3"
    )
    assert not set(refused.split()) & set(allowed)
    assert {"read", "openat", "execve", "futex", "mmap", "getdents64"} <= set(allowed)


def test_counts_of_limits_are_found_with_both_versions_of_control_groups(tmp_path):
    for path in ("pids/docker/a/pids.events", "docker/b/pids.events", "docker/b/memory.events"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("max 3\n")
    first = count_files("8:pids:/docker/a\n4:memory:/docker/a\n0::/docker/a\n", tmp_path)
    second = count_files("0::/docker/b\n", tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in first] == [
        "pids/docker/a/pids.events"
    ]
    assert len(second) == 2
    assert count_in("low 0\noom_kill 2\n", "oom_kill") == 2
    assert count_in("low 0\n", "oom_kill") == 0


ENGINE = {
    "ServerVersion": "20.10.24+dfsg1",
    "OSType": "linux",
    "SecurityOptions": ["name=seccomp,profile=default"],
    "DockerRootDir": "/nowhere",
    "MemoryLimit": True,
    "SwapLimit": True,
    "PidsLimit": True,
    "CpuCfsQuota": True,
}


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"ServerVersion": "19.03.8"}, "too old"),
        ({"ServerVersion": "dev"}, "too old"),
        ({"OSType": "windows"}, "windows"),
        ({"SecurityOptions": None}, "seccomp"),
        ({"SecurityOptions": ["name=seccomp", "name=rootless"]}, "without root"),
        ({"SwapLimit": False}, "a limit of swap"),
    ],
)
def test_a_site_that_lacks_something_says_what(changed, words):
    assert not list(site.reasons(ENGINE, ""))
    assert words in next(site.reasons({**ENGINE, **changed}, ""))
