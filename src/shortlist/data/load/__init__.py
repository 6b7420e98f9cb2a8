"""A dataset to batches of training examples."""
