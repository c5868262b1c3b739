"""The intelligence: what the fleet's events come to. So far the store alone."""
