"""Sweeps: their jobs and summary."""
