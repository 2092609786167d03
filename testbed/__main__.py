"""Starts `testbed`, also as `python -m testbed`; Ctrl-C during the imports ends it silently."""

import sys

INTERRUPTED = 130
"""As `testbed.terminal.run.Exit` has it, which is not loaded yet."""


def main() -> None:
    """Run the command line."""
    try:
        from testbed.cli import app  # noqa: PLC0415 - Ctrl-C may come while it is loaded

        app()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
