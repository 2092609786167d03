"""`testbed up`: certificates, secrets, processes and backups of a server."""
