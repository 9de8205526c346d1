"""Cutting labelled images into train, validation and test."""
