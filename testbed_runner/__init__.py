"""The runner: starts and stops the containers of prototypes at a site, and says what they do.

A process and a credential of its own.  It pulls what should run from the API, sees to it that this
runs and nothing else, and reports states, logs and metrics.  It is the only part of the testbed
that holds the socket of a container engine.
"""
