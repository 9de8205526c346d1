"""Metrics, pictures and the result of a run."""
