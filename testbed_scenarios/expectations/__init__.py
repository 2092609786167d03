"""Expectations of a scenario: their form in the file, and their evaluation over a run.  Pure."""
