"""Scenario files: their words, and the checks that need no run.  Pure: no I/O, no bus, no clock."""
