"""The HTTP library `httpx` without the command line program that it brings along.

Where `click` is installed, `import httpx` loads that program too, with Pygments and half of rich:
a good part of the time in which a short command of ours ends.  Modules that such a command loads
take `httpx` from here.
"""

import sys

_PROGRAM = "httpx._main"
_IS_FIRST = "httpx" not in sys.modules

if _IS_FIRST:
    # its import then raises ImportError, for which httpx has a function in its place
    sys.modules[_PROGRAM] = None  # type: ignore[assignment]  # None is what keeps a module out

import httpx  # noqa: E402 - what stands above is for this import

if _IS_FIRST:
    del sys.modules[_PROGRAM]

__all__ = ["httpx"]
