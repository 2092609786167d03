"""Secrets of deployments as files in memory."""

import pytest

from broker.errors import Unavailable
from testbed_runner.secrets_folder import MEMORY, SecretsFolder


@pytest.fixture
def secrets(tmp_path):
    folder = SecretsFolder(tmp_path, "test")
    yield folder
    for number in folder.deployments():
        folder.remove(number)
    folder.close()
    assert not folder.folder.exists()


def test_only_their_owner_reads_them_and_no_disk_has_them(secrets):
    folder = secrets.write(12, {"CLOUD_KEY": b"hunter22"})
    assert folder.is_relative_to(MEMORY)
    assert [each.stat().st_mode & 0o777 for each in (folder.parent, folder)] == [0o700, 0o700]
    assert (folder / "CLOUD_KEY").stat().st_mode & 0o777 == 0o400
    assert secrets.read(12) == {"CLOUD_KEY": b"hunter22"}


def test_new_ones_replace_those_before(secrets, tmp_path):
    secrets.write(12, {"A": b"1", "B": b"2"})
    secrets.write(12, {"A": b"3"})
    assert SecretsFolder(tmp_path, "test").read(12) == {"A": b"3"}


def test_another_runner_has_others(secrets, tmp_path):
    secrets.write(12, {"A": b"1"})
    other = SecretsFolder(tmp_path / "other", "test")
    assert other.read(12) == {}
    other.close()


def test_a_folder_that_others_could_read_is_refused(secrets, tmp_path):
    secrets.folder.chmod(0o755)
    with pytest.raises(Unavailable, match="others may read it"):
        SecretsFolder(tmp_path, "test")
    secrets.folder.chmod(0o700)
