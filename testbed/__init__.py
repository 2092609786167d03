"""The one command: it wires the parts together and runs them."""
