"""The demo: a simulated factory, a prototype, and a verdict on every sample."""
