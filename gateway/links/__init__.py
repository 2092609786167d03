"""Links read a machine: a package for each protocol, behind one port."""
