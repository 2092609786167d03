"""Needed by every process: metrics server, listening sockets, end with the parent process."""
