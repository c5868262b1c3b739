"""What the tests share: brokers, a fleet in one process, waiting for a condition."""
