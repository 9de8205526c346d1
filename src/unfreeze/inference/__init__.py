"""Prediction, feature extraction and export with the models of runs."""
