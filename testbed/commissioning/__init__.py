"""Commissioning of a gateway: browse a server, check a mapping, trust a certificate."""
