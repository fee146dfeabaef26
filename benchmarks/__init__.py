"""One script per number in the README; each prints one table. `python -m benchmarks` runs them all."""
