"""Requests of the commands to the API and the bus, and the tables that are printed of answers."""
