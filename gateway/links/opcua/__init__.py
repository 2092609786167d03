"""Reads an OPC UA server: session, security, subscriptions and the decoding of data changes."""
