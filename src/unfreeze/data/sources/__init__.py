"""Sources of labelled images, and decoding of image files."""
