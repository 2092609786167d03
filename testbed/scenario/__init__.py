"""Scenarios: runs in virtual time, which a coordinator sets."""
