"""Directories of runs and sweeps: their files and their owners."""
