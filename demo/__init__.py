"""Two small, real models trained in seconds on data that ships inside scikit-learn: `python -m demo.build`."""
