"""TFRecord of flat features, read and written without TensorFlow.

`tables.py` has what others call. Nothing is imported here: `data/layouts.py` needs the
kernels, and the tables need the layouts.
"""
