"""Settings that `testbed up` refuses before anything starts."""

import pytest

from broker.clock import WallClock
from broker.errors import Invalid
from testbed.server import up
from testbed_api.settings import ServerSettings


@pytest.mark.parametrize(
    "setting", [{"broker_server": "nats://127.0.0.1:4222"}, {"broker_backend": "mosquitto"}]
)
async def test_a_broker_that_runs_by_itself_is_none_for_up(tmp_path, setting):
    folder = tmp_path / "data"
    with pytest.raises(Invalid, match="runs by itself"):
        await up.up(ServerSettings(folder=folder, **setting), WallClock(), print)
    assert not folder.exists()
