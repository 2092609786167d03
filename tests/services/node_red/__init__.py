"""Node-RED, as `install` beside this file put it."""

from collections.abc import Sequence

from tests import services
from tests.services import npm_packages

VERSION = "4.1.15"


def command() -> Sequence[str]:
    """The words that start it; its options come behind them."""
    modules = npm_packages.folder("node-red", VERSION, "node-red") / "node_modules"
    return [services.found("node"), str(modules / "node-red/red.js")]
