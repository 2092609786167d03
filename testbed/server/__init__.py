"""A server on this machine: certificates, secret files, child processes, backup and restore."""
