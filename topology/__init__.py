"""What everybody agrees on, without any I/O: names, messages, configuration, the provider catalogue."""
