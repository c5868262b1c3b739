"""What people use: the `optimizer` command and `event_monitor`."""
