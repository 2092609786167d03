"""A prototype as a project on its developer's computer: first files, checks, tests, grants."""
