"""Machines that are not there: models, recordings played back, and the faces they show to a
gateway.
"""
