"""Tables in files: save and load a model, keep the best epoch."""
