"""The command `testbed`, which starts and connects the other packages."""
