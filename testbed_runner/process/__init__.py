"""The process product: programs as plain processes of this machine, which isolates nothing."""
