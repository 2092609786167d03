"""Interfaces of simulated machines, one file a protocol."""
