"""Checks of the images before training: sizes, class counts, duplicates, unreadable files."""
