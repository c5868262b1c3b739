"""Does the test suite notice? Each mutant takes one guard out of the code; some test must then fail."""
