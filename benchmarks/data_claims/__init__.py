"""The parts of `data.py`."""
