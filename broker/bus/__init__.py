"""The MQTT connection of every process: client, inbox, session and packets."""
