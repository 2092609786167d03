"""The owner of the files in a data folder, as a start looks at them."""

import os

import pytest

from broker.errors import Refused
from testbed_api import data_folder


def test_a_file_of_another_user_is_named_with_how_to_give_it_back(tmp_path):
    own, other = os.geteuid(), os.geteuid() + 4_321
    (tmp_path / "lock").touch()
    if own:
        data_folder.check_owner(tmp_path, own)
    with pytest.raises(Refused, match=rf"^{tmp_path} belongs to .*, and the server runs as") as no:
        data_folder.check_owner(tmp_path, other)
    assert no.value.hint == f"sudo chown -R {other}: {tmp_path}"


def test_root_and_a_folder_that_is_not_there_are_let_pass(tmp_path):
    data_folder.check_owner(tmp_path, 0)
    data_folder.check_owner(tmp_path / "new", 4_321)
