"""Measures tfopt beside plain TensorFlow and beside bare servers: `python -m benchmarks --help`."""
