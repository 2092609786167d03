"""A key that others may read is a warning of a start."""

import structlog.testing

from testbed_api.security import key_files


def test_a_key_that_others_may_read_is_warned_of_with_how_to_close_it(tmp_path):
    key = tmp_path / "audit.key"
    key.touch(mode=0o600)
    with structlog.testing.capture_logs() as logs:
        key_files.warn_if_open(key)
        key.chmod(0o640)  # a group is somebody's choice
        key_files.warn_if_open(key)
        assert logs == []
        key.chmod(0o644)
        key_files.warn_if_open(key)
    (warning,) = logs
    assert (warning["log_level"], warning["mode"]) == ("warning", "644")
    assert warning["advice"] == f"chmod 600 {key}"
