"""Private files and locks, on a real disk."""

import os
import stat
from concurrent.futures import ThreadPoolExecutor

import pytest

from broker.errors import Taken
from broker.process import file_lock, files


def mode_of(file):
    return stat.S_IMODE(file.stat().st_mode)


def test_a_private_file_is_its_owners_alone_whatever_the_umask(tmp_path):
    before = os.umask(0)
    try:
        with files.create_private(tmp_path / "key") as opened:
            opened.write(b"secret")
        files.replace(tmp_path / "other", b"secret")
    finally:
        os.umask(before)
    assert mode_of(tmp_path / "key") == mode_of(tmp_path / "other") == 0o600


def test_a_private_file_that_is_there_is_not_overwritten(tmp_path):
    (tmp_path / "key").write_bytes(b"old")
    with pytest.raises(FileExistsError):
        files.create_private(tmp_path / "key")
    assert (tmp_path / "key").read_bytes() == b"old"


def test_a_file_is_replaced_whole_and_leaves_nothing_beside_it(tmp_path):
    file = tmp_path / "key"
    file.write_bytes(b"old")
    (tmp_path / ".key.new").write_bytes(b"left by a crash")
    files.replace(file, b"new", mode=0o644)
    assert (file.read_bytes(), mode_of(file)) == (b"new", 0o644)
    assert list(tmp_path.iterdir()) == [file]


def test_a_file_that_several_replace_at_once_is_whole(tmp_path):
    file, contents = tmp_path / "key", [bytes([number]) * 100_000 for number in range(4)]
    with ThreadPoolExecutor(len(contents)) as pool:
        list(pool.map(lambda content: replaced_often(file, content), contents))
    assert file.read_bytes() in contents
    assert list(tmp_path.iterdir()) == [file]


def replaced_often(file, content):
    for _ in range(20):
        files.replace(file, content, shared=True)


def test_a_lock_is_held_by_one_at_a_time(tmp_path):
    taken = Taken("somebody is here")
    again = file_lock.locked(tmp_path / "lock", taken)
    with file_lock.locked(tmp_path / "lock", taken), pytest.raises(Taken, match="is here"), again:
        pytest.fail("two hold it")
    with file_lock.locked(tmp_path / "lock", taken):
        pass
