"""`python -m testbed` is `testbed`."""

from testbed.cli import app

app()
