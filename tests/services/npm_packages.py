"""npm packages that an `install` of a folder beside this file has put into the cache."""

from pathlib import Path

import pytest

from tests.services import built_products


def folder(name: str, version: str, marker: str) -> Path:
    """The folder that holds `node_modules`; the test is skipped where there is none.

    marker: what stands in `node_modules` once the install is done.
    """
    installed = built_products.cache() / f"{name}-{version}"
    if not (installed / "node_modules" / marker).exists():
        pytest.skip(
            f"{name} {version} is not on this machine; tests/services/install puts it there"
        )
    return installed
