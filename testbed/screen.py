"""What a command prints on standard output."""

import sys

import orjson
from rich.console import Console

out = Console(soft_wrap=True, highlight=False)


def say_json(what: object) -> None:
    """One line of JSON, at once."""
    sys.stdout.buffer.write(orjson.dumps(what, option=orjson.OPT_SERIALIZE_NUMPY) + b"\n")
    sys.stdout.buffer.flush()
