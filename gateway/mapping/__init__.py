"""The mapping: the OPC UA node or MQTT topic of each signal of each stream, read from a file."""
