"""A project is packed as the same bytes wherever it lies, and a hostile archive is refused."""

import io
import os
import tarfile
from pathlib import Path

import pytest

from broker import tar_entries
from broker.errors import Invalid, Unknown
from broker.prototypes import bundle
from broker.tar_entries import TarBounds


def project(folder: Path) -> Path:
    (folder / "models").mkdir(parents=True)
    (folder / "prototype.yaml").write_text("prototype: watch\n")
    (folder / "prototype.py").write_text("print('reading')\n")
    (folder / "models" / f"{'long-' * 40}naïve.bin").write_bytes(bytes(3000))
    (folder / "start").write_text("#!/bin/sh\n")
    (folder / "start").chmod(0o700)
    return folder


def packed(folder: Path) -> bytes:
    target = io.BytesIO()
    bundle.pack(folder, target)
    return target.getvalue()


def archive_of(*entries: tuple[str, bytes | str], kind: bytes = tarfile.REGTYPE) -> io.BytesIO:
    """An archive of (name, content) pairs; a text is where a link leads."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        for name, content in entries:
            entry = tarfile.TarInfo(name)
            entry.type = kind
            if isinstance(content, str):
                entry.linkname = content
                archive.addfile(entry)
            else:
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
    target.seek(0)
    return target


def test_a_project_has_one_digest_whatever_its_times_folders_and_caches(tmp_path: Path) -> None:
    first, second = project(tmp_path / "a"), project(tmp_path / "b")
    os.utime(second / "prototype.py", (1, 1))
    (second / "prototype.py").chmod(0o664)
    (second / "empty").mkdir()
    (second / "__pycache__").mkdir()
    (second / "__pycache__" / "x.pyc").write_bytes(b"x")
    (second / ".git").mkdir()
    (second / ".git" / "HEAD").write_text("x")
    (second / "env").mkdir()
    (second / "env" / "pyvenv.cfg").write_text("home = /usr\n")
    (second / "out.xml").write_text("<x/>")
    assert packed(first) == packed(second)
    (second / "prototype.py").write_text("print('other')\n")
    assert packed(first) != packed(second)


def test_a_packed_project_is_checked_and_unpacked_as_it_was(tmp_path: Path) -> None:
    folder = project(tmp_path / "a")
    target = io.BytesIO()
    written = bundle.pack(folder, target)
    assert bundle.pack(folder) == written == bundle.check(target)
    assert written.files == 4
    assert written.size_bytes == len(target.getvalue())
    bundle.unpack(target, tmp_path / "unpacked")
    assert packed(tmp_path / "unpacked") == target.getvalue()
    assert (tmp_path / "unpacked" / "start").stat().st_mode & 0o777 == 0o755


def test_a_folder_with_a_link_or_without_files_is_not_packed(tmp_path: Path) -> None:
    folder = project(tmp_path / "a")
    (folder / "data").symlink_to("/etc")
    with pytest.raises(Invalid, match=r"data is a link"):
        bundle.pack(folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(Invalid, match="has no file"):
        bundle.pack(tmp_path / "empty")
    with pytest.raises(Unknown, match="no folder"):
        bundle.pack(tmp_path / "nowhere")


def test_a_project_of_too_many_bytes_is_not_packed(tmp_path: Path) -> None:
    with (tmp_path / "recording.bin").open("wb") as file:
        file.truncate(bundle.MOST_BYTES + 1)
    with pytest.raises(Invalid, match="more than 20,000 files or 256 MiB"):
        bundle.pack(tmp_path)


@pytest.mark.parametrize(
    ("archive", "sentence"),
    [
        (archive_of(("../x", b"x")), "leads out"),
        (archive_of(("/etc/x", b"x")), "leads out"),
        (archive_of(("x/../../y", b"x")), "leads out"),
        (archive_of(("x", "/etc/passwd"), kind=tarfile.SYMTYPE), "no regular file"),
        (archive_of(("x", "../y"), kind=tarfile.LNKTYPE), "no regular file"),
        (archive_of(("x", b""), kind=tarfile.CHRTYPE), "no regular file"),
        (archive_of(("x", b""), kind=tarfile.FIFOTYPE), "no regular file"),
        (archive_of(("x", b""), kind=tarfile.DIRTYPE), "no regular file"),
        (archive_of(("x", b"1"), ("./x", b"2")), "stands twice"),
        (archive_of(("x", b"1"), ("x/y", b"2")), "stands twice"),
        (archive_of(("x/y", b"1"), ("x", b"2")), "stands twice"),
        (archive_of(), "no file"),
        (io.BytesIO(b""), "no whole tar archive"),
        (io.BytesIO(b"PK\x03\x04" + bytes(2000)), "no whole tar archive"),
        (io.BytesIO(archive_of(("x", bytes(4000))).getvalue()[:2000]), "no whole tar archive"),
        (io.BytesIO(archive_of(("x", b"1")).getvalue()[:1024]), "no whole tar archive"),
        (io.BytesIO(archive_of(("x", b"1"), ("y", b"2")).getvalue()[:1024] + b"?" * 512), "whole"),
    ],
)
def test_an_archive_that_no_packing_writes_is_refused(
    archive: io.BytesIO, sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(Invalid, match=sentence):
        bundle.check(archive)
    archive.seek(0)
    if sentence != "no file":
        with pytest.raises(Invalid, match=sentence):
            bundle.unpack(archive, tmp_path / "folder")
    assert {path.name for path in tmp_path.iterdir()} <= {"folder"}


def test_a_header_of_many_megabytes_is_not_read_into_memory() -> None:
    entry = tarfile.TarInfo("././@LongLink")
    entry.type = tarfile.GNUTYPE_LONGNAME
    entry.size = 900 * 1024**2
    archive = io.BytesIO(entry.tobuf() + bytes(1024))
    with pytest.raises(Invalid, match="header has more than 1,048,576 bytes"):
        bundle.check(archive)


def test_an_archive_with_more_than_its_bounds_is_refused_at_once() -> None:
    archive = archive_of(*((f"f{number}", b"12345") for number in range(5)))
    read = [entry.name for entry in tar_entries.entries(archive, TarBounds(5, 25))]
    assert read == ["f0", "f1", "f2", "f3", "f4"]
    with pytest.raises(Invalid, match="more than 4 entries"):
        list(tar_entries.entries(archive, TarBounds(4, 25)))
    with pytest.raises(Invalid, match="more than 24 bytes when unpacked"):
        list(tar_entries.entries(archive, TarBounds(5, 24)))
