"""Array kernels: the compiled core, or a NumPy twin without it."""
