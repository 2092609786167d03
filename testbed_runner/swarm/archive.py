"""Prepares the archive of an image for `docker load`: its digest verified, its names left out.

An archive may bring names for its image: loaded as they are, they would replace images of others,
such as that of the relays.
"""

import hashlib
import io
import json
import tarfile
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from broker.deployments.life import EndCause
from testbed_runner.port import CannotStart

_MANIFEST = "manifest.json"
_MOST_DOCUMENT = 8 * 1024 * 1024


def prepare(source: Path, target: BinaryIO, digest: str) -> None:
    """Write an archive with one image, of this digest, and nothing but its parts.

    Raises CannotStart for any other archive.
    """
    try:
        with tarfile.open(source) as archive:
            entry = _entry(archive)
            config = _document(archive, entry["Config"])
            actual = f"sha256:{hashlib.sha256(config).hexdigest()}"
            if actual != digest:
                raise CannotStart(
                    f"its image arrived with the digest {actual}, and {digest} was deployed",
                    cause=EndCause.IMAGE,
                    hint="push it again",
                )
            _write(archive, target, entry)
    except (tarfile.TarError, OSError, ValueError, KeyError, TypeError) as exc:
        raise CannotStart(
            f"its image is no archive of `docker save`: {exc}", cause=EndCause.IMAGE
        ) from exc


def _entry(archive: tarfile.TarFile) -> dict[str, Any]:
    """The only entry of the manifest."""
    entries = json.loads(_document(archive, _MANIFEST))
    if len(entries) != 1:
        raise ValueError(f"it holds {len(entries)} images")
    entry = entries[0]
    return {"Config": str(entry["Config"]), "Layers": [str(each) for each in entry["Layers"]]}


def _document(archive: tarfile.TarFile, name: str) -> bytes:
    member = archive.getmember(name)
    content = archive.extractfile(member) if member.isfile() else None
    if content is None or member.size > _MOST_DOCUMENT:
        raise ValueError(f"{name} is no file, or too large")
    return content.read()


def _write(archive: tarfile.TarFile, target: BinaryIO, entry: dict[str, Any]) -> None:
    parts = {entry["Config"], *entry["Layers"]}
    for name in parts:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise ValueError(f"{name} climbs out of it")
    with tarfile.open(fileobj=target, mode="w") as written:
        manifest = json.dumps([entry | {"RepoTags": None}]).encode()
        header = tarfile.TarInfo(_MANIFEST)
        header.size = len(manifest)
        written.addfile(header, io.BytesIO(manifest))
        for name in sorted(parts):
            member = archive.getmember(name)
            content = archive.extractfile(member)  # follows links inside of the archive
            if content is None:
                raise ValueError(f"{name} is no file")
            size = content.seek(0, io.SEEK_END)
            content.seek(0)
            plain = tarfile.TarInfo(name)
            plain.size = size
            written.addfile(plain, content)
