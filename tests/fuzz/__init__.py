"""Malformed messages of every kind, sent to real workers; each must have exactly one end."""
