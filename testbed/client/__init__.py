"""Calls to the API and the bus that the commands make."""
