"""The API's routes, by noun."""
