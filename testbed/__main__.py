"""Starts `testbed`, also as `python -m testbed`; Ctrl-C during the imports ends it silently."""

import gc
import sys

INTERRUPTED = 130
"""As `testbed.terminal.run.Exit` has it, which is not loaded yet."""
GARBAGE_EVERY = 50_000
"""Live new objects that start the garbage collector's search for reference cycles.

A decoded document is hundreds of objects without a cycle, and so is a module: at Python's default
of 700 the search takes half of the recorder's time, and a tenth of a server's start."""


def main() -> None:
    """Run the command line."""
    gc.set_threshold(GARBAGE_EVERY)
    try:
        from testbed.cli import app  # noqa: PLC0415 - Ctrl-C may come while it is loaded

        app()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
