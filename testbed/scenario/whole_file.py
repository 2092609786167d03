"""Writes a file that a person or a program of theirs reads: whole, or not at all."""

import os
import secrets
from contextlib import suppress
from pathlib import Path

from broker.errors import Invalid


def check(path: Path, *, option: str) -> None:
    """Raise Invalid for a file that cannot be written, before a run; option: that named it."""
    if path.is_dir():
        raise Invalid(f"{path} is a folder", hint=f"name a file with {option}")
    if not path.absolute().parent.is_dir():
        raise Invalid(
            f"there is no folder {path.absolute().parent} for {path.name}",
            hint=f"create it, or name another file with {option}",
        )
    if not os.access(path.absolute().parent, os.W_OK):
        raise Invalid(
            f"{path.absolute().parent} cannot be written", hint=f"name another file with {option}"
        )


def write(path: Path, text: str, *, option: str) -> None:
    """Write a text in place of what is there; raises Invalid, and leaves nothing half written."""
    new = path.with_name(f".{path.name}.{secrets.token_hex(4)}.new")
    try:
        new.write_text(text, encoding="utf-8")
        new.replace(path)
    except OSError as exc:
        with suppress(OSError):
            new.unlink(missing_ok=True)
        raise Invalid(
            f"{path} cannot be written: {exc.strerror}", hint=f"name another file with {option}"
        ) from exc
