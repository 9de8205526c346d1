"""Augmentation of batches on their device."""
