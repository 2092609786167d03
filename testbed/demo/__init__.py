"""The demo: a simulated machine, a gateway, a server and a prototype; every sample is checked."""
