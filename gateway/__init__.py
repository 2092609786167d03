"""The process at the factory: it reads a machine and keeps what it read until that is stored."""
