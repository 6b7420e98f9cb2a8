"""Public and synthetic logs, for the demo, examples, tests and benchmarks."""
