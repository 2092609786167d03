"""Reads sensors over MQTT: subscription and the decoding of payloads."""
