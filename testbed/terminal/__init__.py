"""The terminal side of every command: options, exit codes, logs and output."""
