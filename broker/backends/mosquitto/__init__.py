"""Mosquitto as broker: its configuration files, dynamic security and log."""
