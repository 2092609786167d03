"""Ask a person for a secret, which a pipe may hold, or for a yes."""

import sys

import typer

from broker.errors import Refused

MOST_SECRET = 1024**2
"""Characters of a pipe that are read; what takes a secret refuses one that is too long."""


def secret(
    question: str, *, twice: bool = False, option: str = "--password", whole: bool = False
) -> str:
    """The secret that a person types unseen, or a line of a pipe; raises Refused without any.

    twice: a person types it again, to be sure of it; a pipe holds it once.  option: that takes it
    instead.  whole: of a pipe, all of it, as a key has several lines.
    """
    try:
        if sys.stdin.isatty():
            typed = typer.prompt(question, hide_input=True, confirmation_prompt=twice)
        else:
            typed = sys.stdin.read(MOST_SECRET) if whole else sys.stdin.readline()
    except (typer.Abort, UnicodeDecodeError):
        typed = ""
    if not typed.strip():
        raise Refused("nothing was typed", hint=f"in scripts: a line of a pipe, or {option}")
    return str(typed).strip()


def must_confirm(question: str, *, confirmed: bool, hint: str) -> None:
    """Return if a person at a terminal says yes, or has said so before; raises Refused if not.

    confirmed: by an option of the command.  hint: how to say so without a terminal.
    """
    try:
        is_yes = confirmed or (sys.stdin.isatty() and typer.confirm(question, err=True))
    except typer.Abort:
        is_yes = False
    if not is_yes:
        raise Refused(f"not confirmed: {question}", hint=hint)
