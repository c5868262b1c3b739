"""How many requests are answered in time under scarce quotas, by whom: see `python -m benchmarks.goodput`."""
