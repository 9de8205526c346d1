"""The cache folder: files that later runs reuse."""
