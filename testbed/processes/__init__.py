"""Processes of a demo and of a scenario: the testbed's own, and the programs of others."""
