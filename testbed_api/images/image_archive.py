"""Checks an archive that claims to hold an image of a container, without unpacking it.

Two layouts: that of `docker save`, with a manifest.json, and that of OCI, with an index.json.
Everything in it is somebody else's: sizes, names and hashes are looked at before they are used.
Source: OCI image specification 1.1, image-layout.md and config.md.
"""

import hashlib
import posixpath
import re
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import orjson

from broker import tar_entries
from broker.errors import Invalid
from broker.tar_entries import TarBounds
from testbed_api.images.forward_reader import GZIP, FileSection, ForwardReader, uncompressed

LINUX = "linux"
SAVE = "write it with `docker save NAME:TAG -o image.tar`"
MOST_ENTRIES = 10_000
MOST_FILES = 500_000
"""Entries of an archive, and of each of its layers."""
MOST_LAYERS = 200
MOST_DOCUMENT = 4 * 1024**2
"""Bytes of a manifest, an index or a configuration."""
_DIGEST = re.compile("sha256:[0-9a-f]{64}")
_DOCKER, _OCI = "manifest.json", "index.json"
_INDEX = frozenset(
    {
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
    }
)
_REFERENCE_TYPE = "vnd.docker.reference.type"
"""Annotation of a manifest that is no image, but says something of one."""
_DEVICES = frozenset({(0, 0), *((1, each) for each in (3, 5, 7, 8, 9)), (5, 0), (5, 1), (5, 2)})
"""Character devices that base images bring, such as null, zero and tty: an engine makes its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedImage:
    """An image in an archive.  digest: of its configuration, as Docker names it."""

    digest: str
    architecture: str
    unpacked_bytes: int


@dataclass(frozen=True, slots=True)
class _Layer:
    """A layer: its entry in the archive, and the digest of that where a manifest has it."""

    path: str
    digest: str = ""


def check(archive: BinaryIO, unpacked_bytes: int) -> CheckedImage:
    """The one image for Linux in an archive, all of whose layers are as its configuration says.

    archive: can seek.  unpacked_bytes: the most that its layers may have without compression.
    Raises Invalid with a sentence about the first thing that is wrong.
    """
    if archive.read(2) == GZIP:
        raise Invalid("it is compressed as a whole", hint="unpack it first with gunzip")
    opened = _Archive.opened(archive)
    if _DOCKER in opened.entries:
        config_path, layers = _of_docker(opened)
        config_digest = ""
    elif _OCI in opened.entries:
        config_path, config_digest, layers = _of_oci(opened)
    else:
        raise Invalid(f"it holds no image: it has neither {_DOCKER} nor {_OCI}", hint=SAVE)
    content = opened.content(config_path)
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    if not _is_named(config_path, config_digest, digest):
        raise Invalid(f"its configuration is {digest}, and is named {config_path[:100]!r}")
    architecture, diff_ids = _of_config(content)
    if len(diff_ids) != len(layers):
        raise Invalid(f"it has {len(layers)} layers, and its configuration {len(diff_ids)}")
    budget = _Budget(unpacked_bytes)
    budget.check(sum(opened.entry(layer.path).size for layer in layers))
    for layer, diff_id in zip(layers, diff_ids, strict=True):
        opened.check_layer(layer, diff_id, budget)
    return CheckedImage(digest=digest, architecture=architecture, unpacked_bytes=budget.used)


@dataclass(slots=True)
class _Budget:
    """Bytes that the layers of an image have without compression."""

    most: int
    used: int = 0

    def count(self, size: int) -> None:
        self.used += size
        self.check(self.used)

    def check(self, size: int) -> None:
        if size > self.most:
            raise Invalid(f"its layers have more than {self.most:,} bytes when unpacked")


@dataclass(frozen=True, slots=True)
class _Archive:
    """An archive and its entries by name, each checked."""

    file: BinaryIO
    entries: Mapping[str, tarfile.TarInfo] = field(repr=False)

    @classmethod
    def opened(cls, file: BinaryIO) -> "_Archive":
        size = file.seek(0, 2)
        entries: dict[str, tarfile.TarInfo] = {}
        for entry in tar_entries.entries(file, TarBounds(MOST_ENTRIES, size)):
            name = tar_entries.check_name(entry.name)
            if entry.isdir():
                continue
            if entry.issym() or entry.islnk():
                _target(entry)
            elif not entry.isreg():
                raise Invalid(f"its entry {name[:80]!r} is a device or a pipe", hint=SAVE)
            if name in entries:
                raise Invalid(f"its entry {name[:80]!r} stands twice", hint=SAVE)
            entries[name] = entry
        return cls(file, entries)

    def entry(self, path: str) -> tarfile.TarInfo:
        """The file at a path, where links lead; raises Invalid if there is none."""
        entry = self.entries.get(path)
        if entry is not None and not entry.isreg():
            entry = self.entries.get(_target(entry))
        if entry is None or not entry.isreg():
            raise Invalid(f"it lacks {path[:100]!r}, which it names", hint=SAVE)
        return entry

    def content(self, path: str) -> bytes:
        """The bytes of a small file; raises Invalid."""
        entry = self.entry(path)
        if entry.size > MOST_DOCUMENT:
            raise Invalid(f"its {path[:100]!r} has more than {MOST_DOCUMENT:,} bytes")
        return b"".join(tar_entries.pieces(self.file, entry))

    def document(self, path: str) -> Any:
        """A JSON document; raises Invalid."""
        return _parsed(self.content(path), path)

    def check_layer(self, layer: _Layer, diff_id: str, budget: _Budget) -> None:
        """Raise Invalid for a layer that differs from its digests, or holds what none may."""
        entry = self.entry(layer.path)
        if layer.digest:
            sha256 = hashlib.sha256()
            for piece in tar_entries.pieces(self.file, entry):
                sha256.update(piece)
            _must_be(layer.path, layer.digest, f"sha256:{sha256.hexdigest()}")
        self.file.seek(entry.offset_data)
        magic = self.file.read(min(4, entry.size))
        section = FileSection(self.file, entry.offset_data, entry.size)
        reader = ForwardReader(uncompressed(section, magic), budget.count)
        for inner in tar_entries.entries(reader, TarBounds(MOST_FILES, budget.most)):
            _check_inner(inner)
        _must_be(layer.path, diff_id, reader.finish())


def _of_docker(archive: _Archive) -> tuple[str, list[_Layer]]:
    """Path of the configuration, and the layers, of the one image in manifest.json."""
    images = archive.document(_DOCKER)
    if not isinstance(images, list) or not images:
        raise Invalid(f"its {_DOCKER} lists no image", hint=SAVE)
    if len(images) > 1:
        raise Invalid(f"it holds {len(images)} images, and one is taken at a time", hint=SAVE)
    config = _text(images[0], "Config", _DOCKER)
    layers = images[0].get("Layers")
    if not isinstance(layers, list) or not all(isinstance(each, str) for each in layers):
        raise Invalid(f"its {_DOCKER} lists no layers", hint=SAVE)
    return _path(config), [_Layer(_path(each)) for each in _bounded(layers)]


def _of_oci(archive: _Archive) -> tuple[str, str, list[_Layer]]:
    """Path and digest of the configuration, and the layers, of the one image in index.json."""
    descriptor = _only_image(archive.document(_OCI))
    if descriptor.get("mediaType") in _INDEX:
        descriptor = _only_image(_blob(archive, descriptor))
    manifest = _blob(archive, descriptor)
    config = manifest.get("config") if isinstance(manifest, dict) else None
    layers = manifest.get("layers") if isinstance(manifest, dict) else None
    if not isinstance(config, dict) or not isinstance(layers, list):
        raise Invalid("its manifest names no configuration or no layers", hint=SAVE)
    digests = [_digest(each) for each in _bounded(layers)]
    digest = _digest(config)
    return _blob_path(digest), digest, [_Layer(_blob_path(each), each) for each in digests]


def _only_image(index: Any) -> dict[str, Any]:
    """The descriptor of the one image in an index; raises Invalid."""
    listed = index.get("manifests") if isinstance(index, dict) else None
    if not isinstance(listed, list) or not all(isinstance(each, dict) for each in listed):
        raise Invalid("its index lists no image", hint=SAVE)
    images = [each for each in listed if not _is_about_another(each)]
    if len(images) != 1:
        raise Invalid(
            f"its index lists {len(images)} images, and one is taken",
            hint="build it for one platform alone; " + SAVE,
        )
    return dict(images[0])


def _is_about_another(descriptor: Mapping[str, Any]) -> bool:
    annotations = descriptor.get("annotations")
    return isinstance(annotations, dict) and _REFERENCE_TYPE in annotations


def _blob(archive: _Archive, descriptor: Mapping[str, Any]) -> Any:
    """The JSON document that a descriptor is about, which has its digest."""
    digest = _digest(descriptor)
    content = archive.content(_blob_path(digest))
    _must_be(_blob_path(digest), digest, f"sha256:{hashlib.sha256(content).hexdigest()}")
    return _parsed(content, _blob_path(digest))


def _of_config(content: bytes) -> tuple[str, Sequence[str]]:
    """Architecture of an image's configuration, and the digests of its layers' archives."""
    config = _parsed(content, "its configuration")
    system = _text(config, "os", "configuration")
    if system != LINUX:
        raise Invalid(f"it is for {system[:40]}, and sites run {LINUX}", hint="build it for linux")
    architecture = _text(config, "architecture", "configuration")
    if re.fullmatch(r"[a-z0-9_]{1,40}", architecture) is None:
        raise Invalid(f"its architecture {architecture[:40]!r} is none")
    root = config.get("rootfs")
    diff_ids = root.get("diff_ids") if isinstance(root, dict) else None
    if not isinstance(diff_ids, list) or not all(
        isinstance(each, str) and _DIGEST.fullmatch(each) for each in diff_ids
    ):
        raise Invalid("its configuration lists no layers", hint=SAVE)
    return architecture, diff_ids


def _check_inner(entry: tarfile.TarInfo) -> None:
    """Raise Invalid for an entry of a layer that leads out of the image, or is a device of value.

    Symbolic links are of the running container, whose root is the image's.
    """
    if entry.islnk():
        tar_entries.check_name(entry.linkname.lstrip("/"))
    if entry.isblk() or (entry.ischr() and (entry.devmajor, entry.devminor) not in _DEVICES):
        raise Invalid(
            f"a layer of it holds the device {entry.name[:80]!r}",
            hint="build the image without it: the site gives devices, and an image brings none",
        )


def _target(entry: tarfile.TarInfo) -> str:
    """The path to which a link in an archive leads; raises Invalid if that is outside."""
    beside = posixpath.dirname(entry.name) if entry.issym() else ""
    path = posixpath.normpath(posixpath.join(beside, entry.linkname))
    if path.startswith(("/", "..")):
        raise Invalid(f"its link {entry.name[:80]!r} leads out of the archive's folder")
    return path


def _path(text: str) -> str:
    return tar_entries.check_name(text)


def _blob_path(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _digest(descriptor: Any) -> str:
    digest = descriptor.get("digest") if isinstance(descriptor, dict) else None
    if not isinstance(digest, str) or _DIGEST.fullmatch(digest) is None:
        raise Invalid("a descriptor in it has no SHA-256 digest", hint=SAVE)
    return digest


def _is_named(path: str, named: str, digest: str) -> bool:
    """Whether a file is named as its digest is, if it is named by one at all."""
    stem = posixpath.basename(path).removesuffix(".json")
    names = [named] if named else []
    names += [f"sha256:{stem}"] if re.fullmatch("[0-9a-f]{64}", stem) else []
    return all(each == digest for each in names)


def _must_be(path: str, wanted: str, actual: str) -> None:
    if wanted != actual:
        raise Invalid(f"its part {path[:100]!r} is {actual}, and should be {wanted}", hint=SAVE)


def _bounded(layers: list[Any]) -> list[Any]:
    if len(layers) > MOST_LAYERS:
        raise Invalid(f"it has more than {MOST_LAYERS} layers")
    return layers


def _parsed(content: bytes, name: str) -> Any:
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError as exc:
        raise Invalid(f"its {name[:100]} is no JSON", hint=SAVE) from exc


def _text(document: Any, key: str, name: str) -> str:
    value = document.get(key) if isinstance(document, dict) else None
    if not isinstance(value, str) or not value:
        raise Invalid(f"its {name} has no {key!r}", hint=SAVE)
    return value
