"""One suite for the way onto the bus, over the real NATS and the real Mosquitto."""
