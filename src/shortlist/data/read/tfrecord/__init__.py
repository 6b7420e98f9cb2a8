"""TFRecord of flat features, read and written without TensorFlow."""
