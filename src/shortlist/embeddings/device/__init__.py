"""Tables as JAX arrays on the device that computes the model."""
