"""The work of a runner, as the testbed hands it out."""

import pytest

from broker.deployments.life import DeploymentStage, EndCause, WantedState
from broker.errors import Corrupt
from broker.responses.deployments import WorkItem
from testbed_runner.orders import CUT_OFF_S, STOP_S, RunnerOrder

MANIFEST = {
    "prototype": "watch",
    "image": {"build": "."},
    "command": "python 'my program.py' --fast",
    "inputs": {"rig": "factory/pump-rig/rig"},
    "outputs": {"score": {"signals": {"score": {}}}},
    "environment": {"MODE": "fast"},
    "resources": {"memory": "64 MiB"},
}


def item(**fields):
    values = {
        "id": 12,
        "organisation": "company",
        "stage": DeploymentStage.LIVE,
        "space": "live",
        "wanted": WantedState.RUN,
        "cause": None,
        "reason": "",
        "digest": "sha256:" + "0" * 64,
        "image_kind": "project",
        "reference": "",
        "manifest": MANIFEST,
        "inputs": {"rig": "factory/pump-rig/rig", "flow": "factory/pump-rig/flow"},
        "outputs": {"score": "company/watch/score"},
        "source": None,
        "last_event": 0,
        "last_line": 0,
    }
    return WorkItem.model_validate(values | fields)


def test_a_program_finds_its_streams_and_no_secret_in_its_environment():
    spec = RunnerOrder.from_item(item()).spec("site-1", {"credential": b"watch-12.secret"})
    assert spec.command == ("python", "my program.py", "--fast")
    assert spec.environment == {
        "MODE": "fast",
        "TESTBED_INPUTS": "rig=factory/pump-rig/rig,flow=factory/pump-rig/flow",
        "TESTBED_OUTPUTS": "score=company/watch/score",
        "TESTBED_SPACE": "live",
        "TESTBED_CREDENTIAL_FILE": "/run/testbed/credential",
        "TESTBED_SECRETS": "/run/testbed",
        "PYTHONUNBUFFERED": "1",
    }
    assert spec.resources.memory == 64 * 2**20
    assert "watch-12.secret" not in repr(spec)


def test_what_plays_the_inputs_writes_where_the_program_reads():
    order = RunnerOrder.from_item(item(space="run-deployment-12"))
    assert order.source_environment() == {
        "TESTBED_SPACE": "run-deployment-12",
        "TESTBED_OUTPUTS": "rig=factory/pump-rig/rig,flow=factory/pump-rig/flow",
    }


@pytest.mark.parametrize(
    ("cause", "within_s"), [(EndCause.GRANT, CUT_OFF_S), (EndCause.STOPPED, STOP_S)]
)
def test_a_program_that_is_cut_off_has_little_time_to_end(cause, within_s):
    order = RunnerOrder.from_item(item(wanted=WantedState.STOP, cause=cause))
    assert order.stops_within_s == within_s


def test_a_manifest_of_another_version_is_named():
    with pytest.raises(Corrupt, match="manifest of deployment 12 is none"):
        RunnerOrder.from_item(item(manifest=MANIFEST | {"controls": {}}))
