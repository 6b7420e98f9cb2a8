"""Tables in host memory: kernels, waiting gradients, lookups under each backend."""
