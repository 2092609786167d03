"""The gateway: a process at the factory that reads a machine and spools its samples until they are
stored.
"""
