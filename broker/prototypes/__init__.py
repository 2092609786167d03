"""Prototypes: the manifest of a company's program, which the testbed reads."""
