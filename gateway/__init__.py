"""The edge process at the factory: it reads a machine, keeps what it read until that is stored, and tells of gaps."""
