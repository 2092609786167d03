"""A registry of images from the system, Debian's docker-registry, without a password."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx

from tests import services

CONFIG = """version: 0.1
log: {{level: error}}
storage:
  filesystem: {{rootdirectory: {folder}/images}}
http: {{addr: "{host}:{port}"}}
"""


@contextlib.contextmanager
def serve(folder: Path) -> Iterator[str]:
    """Run a registry on loopback; yields HOST:PORT."""
    command = services.found("docker-registry")
    port = services.free_port()
    config = folder / "registry.yaml"
    config.write_text(CONFIG.format(folder=folder, host=services.LOOPBACK, port=port))
    with services.running(
        [command, "serve", str(config)], folder=folder, ready=lambda: services.accepts(port)
    ):
        yield f"{services.LOOPBACK}:{port}"


def put(host: str, name: str, tag: str, blobs: Mapping[str, bytes], manifest: bytes) -> str:
    """Upload an image; returns the digest of its manifest.

    blobs: content by digest.  manifest: its media type is the one that it names.
    """
    with httpx.Client(base_url=f"http://{host}/v2/{name}", timeout=10) as http:
        for digest, content in blobs.items():
            place = http.post("/blobs/uploads/").raise_for_status().headers["location"]
            binary = {"content-type": "application/octet-stream"}
            joint = "&" if "?" in place else "?"
            http.put(
                f"{place}{joint}digest={digest}", content=content, headers=binary
            ).raise_for_status()
        kind = {"content-type": httpx.Response(200, content=manifest).json()["mediaType"]}
        answer = http.put(f"/manifests/{tag}", content=manifest, headers=kind)
        return str(answer.raise_for_status().headers["docker-content-digest"])
