"""Certificates of the listeners, and the secrets that the processes of a server share."""
