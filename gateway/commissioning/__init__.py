"""Browses a server, proposes a mapping, and checks a mapping before it runs."""
