"""Models of equipment, one a file."""
