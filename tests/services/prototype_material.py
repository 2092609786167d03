"""What a server holds for prototypes, in a folder of its own, with small limits."""

from pathlib import Path

from broker.clock import DAY_NS, Clock
from testbed_api.domain.secrets import SecretCipher
from testbed_api.http.dependencies import PrototypeMaterial
from testbed_api.images.pruning import ImagePruning
from testbed_api.images.shelf import ImageLimits, ImageShelf
from testbed_api.registry.registry import Registry

MOST = 400_000
"""Bytes of an archive."""


def material(folder: Path, registry: Registry, clock: Clock) -> PrototypeMaterial:
    """Images in a folder, and a cipher."""
    shelf = ImageShelf(folder, ImageLimits(archive_bytes=MOST, unpacked_bytes=2_000_000))
    return PrototypeMaterial(
        images=ImagePruning(registry=registry, shelf=shelf, clock=clock, keep_ns=30 * DAY_NS),
        cipher=SecretCipher("5" * 64),
    )
