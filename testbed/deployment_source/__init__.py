"""The program that plays the inputs of a deployment: simulated machines, or a recording."""
