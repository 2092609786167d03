"""Broker products that the testbed can run, a package each, behind one port."""
