"""The subcommands of the command line, a module per noun."""
