"""mqtt.js, a client in JavaScript, as `install` beside this file put it."""

from pathlib import Path

from tests.services import npm_packages

VERSION = "5.16.0"


def modules() -> Path:
    """The folder `node_modules` that holds it."""
    return npm_packages.folder("mqtt-js", VERSION, "mqtt") / "node_modules"
