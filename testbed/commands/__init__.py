"""The subcommands of `testbed`, one module for each noun: each parses, calls and prints."""
