"""Deployments of prototypes: their stages, states and ends, in the words of all parts."""
