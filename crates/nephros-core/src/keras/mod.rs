//! Keras HDF5 model and weight files: read and written.
