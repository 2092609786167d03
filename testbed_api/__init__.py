"""The server: it records what the bus carries, keeps the registry, and answers over HTTP."""
