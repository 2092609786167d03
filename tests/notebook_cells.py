"""Run the code cells of a notebook one after the other, as a kernel does.

`python -m tests.notebook_cells FILE`.  The cells share their names, run while an event loop runs,
and may await.  Nothing is displayed: the first error ends the process with its traceback.
"""

import ast
import asyncio
import inspect
import json
import sys
from pathlib import Path
from typing import Any


async def run(file: Path) -> None:
    """Run each code cell in a namespace of their own."""
    names: dict[str, Any] = {"__name__": "__main__"}
    for number, source in enumerate(code_cells(file), 1):
        compiled = compile(source, f"cell {number}", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        outcome = eval(compiled, names)  # noqa: S307 - our own notebook
        if inspect.isawaitable(outcome):
            await outcome


def code_cells(file: Path) -> list[str]:
    """The source of each code cell."""
    cells = json.loads(file.read_text())["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


if __name__ == "__main__":
    asyncio.run(run(Path(sys.argv[1])))
