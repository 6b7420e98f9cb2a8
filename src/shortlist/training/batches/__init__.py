"""The loader's batches as Keras, TensorFlow and PyTorch take them."""
