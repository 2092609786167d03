"""Writes images as archives that `docker load` reads: layers, and a configuration of them."""

import hashlib
import io
import platform
import stat
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import orjson

FOLDER, FILE, PROGRAM, LINK = 0o755, 0o644, 0o755, 0o777
TAR_FORMAT = tarfile.PAX_FORMAT
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}


@dataclass(frozen=True, slots=True)
class LayerFile:
    """A file of a layer: its bytes, or the file on this machine that has them, and its mode."""

    content: bytes | Path
    mode: int = FILE


@dataclass(frozen=True, slots=True)
class LayerLink:
    """A symbolic link of a layer, and where it leads."""

    target: str


@dataclass(frozen=True, slots=True)
class LayerFolder:
    """A folder of a layer that need not hold anything, and its mode."""

    mode: int = FOLDER


LayerEntries = Mapping[str, LayerFile | LayerLink | LayerFolder]
"""Absolute path in the image -> what is there, all of root's.  Folders above need no entry."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageConfig:
    """How containers of an image begin, unless they are told otherwise."""

    environment: Mapping[str, str] = field(default_factory=dict)
    user: str = ""
    folder: str = "/"
    command: tuple[str, ...] = ()


def architecture() -> str:
    """The architecture of this machine as images name it, such as amd64."""
    machine = platform.machine()
    return _ARCHITECTURES.get(machine, machine)


def of_file(source: Path) -> LayerFile:
    """A file of a layer with the bytes of a file on this machine, and executable if that is."""
    is_program = source.stat().st_mode & stat.S_IXUSR
    return LayerFile(source, PROGRAM if is_program else FILE)


def write_layer(file: BinaryIO, entries: LayerEntries) -> None:
    """Write a layer as an uncompressed tar; times are those of the files it is made of."""
    with tarfile.open(fileobj=file, mode="w", format=TAR_FORMAT) as layer:
        folders: set[str] = {"."}
        for path in sorted(entries):
            name = path.strip("/")
            for above in reversed(Path(name).parents):
                if str(above) not in folders and f"/{above}" not in entries:
                    folders.add(str(above))
                    _add(layer, str(above), LayerFolder())
            _add(layer, name, entries[path])


def write_image(file: BinaryIO, layers: Sequence[Path], config: ImageConfig) -> str:
    """Write an image as `docker save` would, and return its digest: that of its configuration.

    layers: uncompressed tars, the lowest first.
    """
    diff_ids = [f"sha256:{_sha256(layer)}" for layer in layers]
    document = orjson.dumps(
        {
            "architecture": architecture(),
            "os": "linux",
            "config": {
                "Env": [f"{name}={value}" for name, value in config.environment.items()],
                "Cmd": list(config.command) or None,
                "User": config.user,
                "WorkingDir": config.folder,
            },
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        }
    )
    digest = hashlib.sha256(document).hexdigest()
    names = [f"{diff_id.partition(':')[2]}/layer.tar" for diff_id in diff_ids]
    manifest = [{"Config": f"{digest}.json", "RepoTags": None, "Layers": names}]
    with tarfile.open(fileobj=file, mode="w", format=TAR_FORMAT) as archive:
        _add(archive, "manifest.json", LayerFile(orjson.dumps(manifest)))
        _add(archive, f"{digest}.json", LayerFile(document))
        for name, layer in dict(zip(names, layers, strict=True)).items():
            _add(archive, name, LayerFile(layer))
    return f"sha256:{digest}"


def _add(archive: tarfile.TarFile, name: str, entry: LayerFile | LayerLink | LayerFolder) -> None:
    """Add an entry that belongs to root."""
    header = tarfile.TarInfo(name)
    match entry:
        case LayerFolder(mode):
            header.type, header.mode = tarfile.DIRTYPE, mode
            archive.addfile(header)
        case LayerLink(target):
            header.type, header.mode, header.linkname = tarfile.SYMTYPE, LINK, target
            archive.addfile(header)
        case LayerFile(bytes() as content, mode):
            header.size, header.mode = len(content), mode
            archive.addfile(header, io.BytesIO(content))
        case LayerFile(Path() as source, mode):
            status = source.stat()
            header.size, header.mode, header.mtime = status.st_size, mode, int(status.st_mtime)
            with source.open("rb") as opened:
                archive.addfile(header, opened)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
