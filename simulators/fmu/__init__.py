"""FMUs as simulated machines: native code of others, run in a child process with limits."""
