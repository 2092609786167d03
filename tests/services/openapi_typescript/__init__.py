"""openapi-typescript and the TypeScript compiler, as `install` beside this file put them."""

import subprocess
from pathlib import Path

from tests import services
from tests.services import npm_packages

VERSION = "7.13.0"


def generate(document: Path, target: Path) -> None:
    """Write the types of an OpenAPI document."""
    _run("openapi-typescript", str(document), "--output", str(target))


def compile_strictly(program: Path) -> None:
    """Check a program with every strict option; fails the test with what the compiler says."""
    strict = ("--strict", "--noEmit", "--noUncheckedIndexedAccess", "--exactOptionalPropertyTypes")
    _run("tsc", *strict, "--target", "es2022", "--module", "esnext", str(program))


def _run(tool: str, *arguments: str) -> None:
    command = [services.found("node"), str(_packages() / "node_modules" / ".bin" / tool)]
    done = subprocess.run(
        [*command, *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def _packages() -> Path:
    return npm_packages.folder("openapi-typescript", VERSION, "openapi-typescript")
