"""Writing a classifier as a file that other programs run, checked before it is put in place."""
