"""Where a renewed credential signs in, as the data folder of a stopped server tells it."""

from broker.clock import WallClock
from testbed.server import administrator, pki
from testbed_api.settings import ServerSettings


def test_a_renewed_credential_is_printed_with_the_name_and_the_authority_of_its_server(tmp_path):
    settings = ServerSettings(folder=tmp_path)
    assert administrator.addresses(settings).options() == ""
    pki.init(tmp_path / "pki", ["testbed.example"], WallClock().now_ns())
    own = administrator.addresses(settings)
    assert own.options() == "--api https://testbed.example:8600 --ca ca.pem"
    assert own.ca == tmp_path / "pki" / "ca.pem"
