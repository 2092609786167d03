"""A server whose modules are loaded before it knows what it is to do.

The command that starts it, as `python -m testbed.preloaded_server`, reads a scenario meanwhile.
Its order comes as one JSON line on standard input: the words of `testbed`, and the file for its
log.  Without an order it ends, and has done nothing.
"""

import gc
import importlib
import json
import os
import sys
from contextlib import suppress

from testbed import __main__ as command

LOADED = ("testbed.commands.server", "testbed.server.up", "testbed_api.stores.duckdb")


def main() -> None:
    """Load the server, and run the command that is ordered."""
    gc.set_threshold(command.GARBAGE_EVERY)
    with suppress(ModuleNotFoundError):  # the command says which package is not installed
        for name in LOADED:
            importlib.import_module(name)
    line = sys.stdin.readline()
    if not line:
        return
    order = json.loads(line)
    log = os.open(order["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.dup2(log, sys.stderr.fileno())
    os.close(log)
    sys.argv[1:] = order["words"]
    command.main()


if __name__ == "__main__":
    main()
