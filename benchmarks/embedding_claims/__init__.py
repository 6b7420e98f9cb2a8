"""The claims of `embeddings.py`, and the processes they are measured in."""
