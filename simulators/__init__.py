"""Simulated machines: models, recordings played back, and the interfaces a gateway reads."""
