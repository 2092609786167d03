"""Admits clients to the broker, ends their sessions, keeps Mosquitto in step with the rights."""
