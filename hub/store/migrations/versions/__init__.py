"""A file for each step, named after what it brought; `down_revision` gives the order."""
