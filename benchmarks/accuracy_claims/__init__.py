"""What `accuracy.py` and `tune_accuracy.py` measure with."""
