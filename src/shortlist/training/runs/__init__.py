"""Runs on disk: finished and unfinished ones, checkpoints, the run store."""
