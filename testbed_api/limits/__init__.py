"""Quotas of organisations and limits of failed sign-ins."""
