"""Reads the one image in an archive, and writes it anew under a name of ours alone.

An archive names its images itself, and loading it as it is would give these names to it, in place
of other images of the machine.  It may have the layout of `docker save` or of OCI; older engines
read the first only.  Source: OCI image specification 1.1, image-layout.md.
"""

import hashlib
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import orjson

from broker import tar_entries
from broker.errors import Invalid
from broker.tar_entries import TarBounds

BOUNDS = TarBounds(entries=10_000, unpacked_bytes=100 * 1024**3)
"""Of an archive as a whole; the API has its own limits, and looked into every layer."""
MOST_DOCUMENT = 4 * 1024**2
"""Bytes of a manifest, an index or a configuration."""
MOST_MANIFESTS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchivedImage:
    """An image in an archive: its configuration, and its layers, the lowest first."""

    file: BinaryIO = field(repr=False)
    config: bytes = field(repr=False)
    layers: tuple[tarfile.TarInfo, ...] = field(repr=False)

    @property
    def architecture(self) -> str:
        """The architecture that it is for, such as amd64."""
        return str(orjson.loads(self.config).get("architecture"))

    def pieces(self, name: str) -> Iterator[bytes]:
        """The bytes of an archive as `docker save` writes it, with this image under one name."""
        digest = hashlib.sha256(self.config).hexdigest()
        names = [f"{number}.tar" for number in range(len(self.layers))]
        manifest = [{"Config": f"{digest}.json", "RepoTags": [name], "Layers": names}]
        for path, content in (
            ("manifest.json", orjson.dumps(manifest)),
            (f"{digest}.json", self.config),
        ):
            yield _header(path, len(content))
            yield content
            yield _padding(len(content))
        for path, layer in zip(names, self.layers, strict=True):
            yield _header(path, layer.size)
            yield from tar_entries.pieces(self.file, layer)
            yield _padding(layer.size)
        yield bytes(2 * tarfile.BLOCKSIZE)


def opened(file: BinaryIO, digest: str) -> ArchivedImage:
    """The image with this digest in an archive: that of its configuration, as Docker names it.

    Raises Invalid for what is no archive, and for one without that image.
    """
    try:
        return _image(file, digest)
    except (KeyError, TypeError, AttributeError) as exc:
        raise Invalid(f"its documents are no image's: {exc!r}"[:200]) from exc


def _image(file: BinaryIO, digest: str) -> ArchivedImage:
    """The image with this digest; raises KeyError and the like for documents of another form."""
    entries = {
        tar_entries.check_name(entry.name): entry for entry in tar_entries.entries(file, BOUNDS)
    }
    archive = _OpenedArchive(file, entries)
    for config_path, layer_paths in archive.images():
        config = archive.content(config_path)
        if f"sha256:{hashlib.sha256(config).hexdigest()}" == digest:
            layers = tuple(map(archive.entry, layer_paths))
            return ArchivedImage(file=file, config=config, layers=layers)
    raise Invalid(f"it does not hold the image {digest}")


@dataclass(frozen=True, slots=True)
class _OpenedArchive:
    """An archive and its entries by name."""

    file: BinaryIO
    entries: Mapping[str, tarfile.TarInfo]

    def images(self) -> Iterator[tuple[str, list[str]]]:
        """Paths of the configuration and of the layers of each image."""
        if "manifest.json" in self.entries:
            for image in self._list("manifest.json"):
                yield str(image["Config"]), [str(path) for path in image["Layers"]]
            return
        for manifest in self._manifests("index.json", depth=2):
            yield (
                _blob(manifest["config"]["digest"]),
                [_blob(layer["digest"]) for layer in manifest["layers"]],
            )

    def entry(self, path: str) -> tarfile.TarInfo:
        """The file at a path, where a link leads."""
        entry = self.entries.get(path)
        if entry is not None and (entry.issym() or entry.islnk()):
            above = "" if entry.islnk() else path.rpartition("/")[0]
            entry = self.entries.get(_joined(above, entry.linkname))
        if entry is None or not entry.isreg():
            raise Invalid(f"it lacks {path[:100]!r}, which it names")
        return entry

    def content(self, path: str) -> bytes:
        """The bytes of a small file."""
        entry = self.entry(path)
        if entry.size > MOST_DOCUMENT:
            raise Invalid(f"its {path[:100]!r} has more than {MOST_DOCUMENT:,} bytes")
        return b"".join(tar_entries.pieces(self.file, entry))

    def _manifests(self, path: str, *, depth: int) -> Iterator[Mapping[str, Any]]:
        """The manifests of images that an index names, also through an index below it."""
        for described in self._list(path, "manifests"):
            below = _blob(described["digest"])
            if below not in self.entries:
                continue  # of another platform, and left out
            document = self._document(below)
            if "manifests" in document and depth:
                yield from self._manifests(below, depth=depth - 1)
            elif "layers" in document:
                yield document

    def _list(self, path: str, key: str = "") -> list[Any]:
        document = self._document(path)
        listed = document[key] if key else document
        if not isinstance(listed, list) or len(listed) > MOST_MANIFESTS:
            raise Invalid(f"its {path[:100]!r} is no list of images")
        return listed

    def _document(self, path: str) -> Any:
        try:
            return orjson.loads(self.content(path))
        except orjson.JSONDecodeError as exc:
            raise Invalid(f"its {path[:100]!r} is no JSON") from exc


def _blob(digest: str) -> str:
    algorithm, _, value = str(digest).partition(":")
    return f"blobs/{algorithm}/{value}"


def _joined(folder: str, target: str) -> str:
    """The path that a link in a folder leads to, within the archive."""
    parts: list[str] = folder.split("/") if folder else []
    for part in target.split("/"):
        if part == "..":
            parts = parts[:-1]
        elif part not in {"", "."}:
            parts.append(part)
    return "/".join(parts)


def _header(path: str, size: int) -> bytes:
    entry = tarfile.TarInfo(path)
    entry.size = size
    return entry.tobuf(tarfile.PAX_FORMAT)


def _padding(size: int) -> bytes:
    return bytes(-size % tarfile.BLOCKSIZE)
