"""The folder of `testbed run --folder`: a run begins in a new or an empty one alone."""

from pathlib import Path

import pytest

from broker.errors import Invalid, Taken
from testbed.scenario import new_folder


@pytest.mark.parametrize("file", ["server.log", "result.json", "2/server.log"])
def test_a_folder_with_an_earlier_run_is_refused(tmp_path, file):
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text("")
    with pytest.raises(Taken) as refused:
        new_folder.check(tmp_path)
    sentence = f"{tmp_path} holds an earlier run (choose another folder, or remove it)"
    assert str(refused.value) == sentence


def test_a_folder_with_other_files_is_not_empty(tmp_path):
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(Taken, match="is not empty"):
        new_folder.check(tmp_path)


def test_a_file_is_no_folder_and_none_is_made_below_it(tmp_path):
    file = tmp_path / "notes.txt"
    file.write_text("")
    for folder in (file, file / "run"):
        with pytest.raises(Invalid, match=r"notes\.txt is no folder"):
            new_folder.check(folder)


def test_a_new_and_an_empty_folder_are_taken(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    new_folder.check(tmp_path)
    new_folder.check(tmp_path / "new" / "deeper")
    new_folder.check(Path("relative"))
    assert not list(tmp_path.iterdir())
