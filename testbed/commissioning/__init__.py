"""Browse, check and certificate trust from the command line."""
