"""The shared floor: domain types and messages, the bus client, and the broker products."""
