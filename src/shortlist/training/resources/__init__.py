"""Memory and time of training steps: out of memory, batch sizes, profiles."""
