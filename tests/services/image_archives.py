"""Archives of images as tools write them, made of a few files."""

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from typing import Any

DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"


def digest(content: bytes) -> str:
    """The digest of some bytes."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def tar(files: Mapping[str, bytes], *more: tarfile.TarInfo) -> bytes:
    """An archive of files; more: further entries, without content."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
        for entry in more:
            archive.addfile(entry)
    return target.getvalue()


def entry(name: str, kind: bytes, leads_to: str = "", device: tuple[int, int] = (0, 0)) -> Any:
    """A link or a device."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, leads_to
    info.devmajor, info.devminor = device
    return info


LAYERS = (tar({"bin/watch": b"#!/bin/sh\n"}), tar({"etc/watch.conf": b"rate: 10\n" * 500}))


def config(layers: Sequence[bytes] = LAYERS, **changes: Any) -> bytes:
    """The configuration of an image."""
    plain = {"architecture": "amd64", "os": "linux", "config": {"Cmd": ["/bin/watch"]}}
    root = {"type": "layers", "diff_ids": [digest(each) for each in layers]}
    return json.dumps(plain | {"rootfs": root} | changes).encode()


def docker(
    layers: Sequence[bytes] = LAYERS,
    *,
    content: bytes | None = None,
    manifest: Any = None,
    more: Sequence[tarfile.TarInfo] = (),
    without: str = "",
) -> bytes:
    """An archive as `docker save` writes it.  content: of its configuration."""
    content = config(layers) if content is None else content
    name = f"{digest(content).removeprefix('sha256:')}.json"
    paths = [f"{digest(each).removeprefix('sha256:')}/layer.tar" for each in layers]
    described = [{"Config": name, "RepoTags": ["watch:1"], "Layers": paths}]
    files = {name: content} | dict(zip(paths, layers, strict=True))
    files["manifest.json"] = json.dumps(described if manifest is None else manifest).encode()
    return tar({name: each for name, each in files.items() if name != without}, *more)


def oci(
    layers: Sequence[bytes] = LAYERS,
    *,
    content: bytes | None = None,
    compress: bool = True,
    images: int = 1,
    changed: str = "",
) -> bytes:
    """An archive in the layout of OCI, its layers compressed.

    images: that its index lists.  changed: what differs from its digest: layer or manifest.
    """
    content = config(layers) if content is None else content
    packed = [gzip.compress(each, mtime=0) if compress else each for each in layers]
    described = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": DOCKER_CONFIG, "digest": digest(content), "size": len(content)},
        "layers": [{"digest": digest(each), "size": len(each)} for each in packed],
    }
    manifest = json.dumps(described).encode()
    named = {"mediaType": OCI_MANIFEST, "digest": digest(manifest), "size": len(manifest)}
    about = named | {"annotations": {"vnd.docker.reference.type": "attestation-manifest"}}
    index = json.dumps({"manifests": [named] * images + [about]}).encode()
    blobs = {digest(each): each for each in (content, manifest, *packed)}
    if changed:
        key = digest(manifest if changed == "manifest" else packed[0])
        blobs[key] += b" "
    files = {f"blobs/sha256/{key.removeprefix('sha256:')}": each for key, each in blobs.items()}
    return tar({"oci-layout": b"{}", "index.json": index} | files)


PACKED = tuple(gzip.compress(each, mtime=0) for each in LAYERS)
BLOBS = {digest(each): each for each in (config(), *PACKED)}
"""What a registry holds of the image, by digest."""


def manifest() -> bytes:
    """The manifest of the image in a registry, as Docker writes it."""
    layer = "application/vnd.docker.image.rootfs.diff.tar.gzip"
    content = config()
    described = {"mediaType": DOCKER_CONFIG, "digest": digest(content), "size": len(content)}
    layers = [{"mediaType": layer, "digest": digest(each), "size": len(each)} for each in PACKED]
    kind = "application/vnd.docker.distribution.manifest.v2+json"
    plain = {"schemaVersion": 2, "mediaType": kind, "config": described, "layers": layers}
    return json.dumps(plain).encode()
