"""What every command's options have in common."""

from collections.abc import Callable
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from broker.errors import Invalid
from testbed.terminal import run

Json = Annotated[bool, typer.Option("--json", help="print JSON, for scripts")]


def settings(kind: Callable[..., Any], **given: Any) -> Any:
    """Settings from options and TESTBED_…; what is wrong ends the command with a sentence."""
    try:
        return kind(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as exc:
        wrong = "; ".join(
            f"{'.'.join(map(str, one['loc']))}: {one['msg'].removeprefix('Value error, ')}"
            for one in exc.errors()
        )
        run.fail(Invalid(f"a setting is not right: {wrong}", hint="see docs/reference/settings.md"))
    except Invalid as exc:
        run.fail(exc)
