"""Ask a person for a secret, or read it from a pipe."""

import sys

import typer

from broker.errors import Refused


def secret(question: str, *, twice: bool = False) -> str:
    """The secret that a person types unseen, or a line of a pipe; raises Refused without any.

    twice: a person types it again, to be sure of it; a pipe holds it once.
    """
    try:
        if sys.stdin.isatty():
            typed = typer.prompt(question, hide_input=True, confirmation_prompt=twice)
        else:
            typed = sys.stdin.readline()
    except (typer.Abort, UnicodeDecodeError):
        typed = ""
    if not typed.strip():
        raise Refused("nothing was typed", hint="in scripts: a line of a pipe, or --password")
    return str(typed).strip()
