"""The fit of one model: stock `fit` with checkpoints, reports and early stops."""
