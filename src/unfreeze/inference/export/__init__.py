"""Export of a classifier to files for other programs, checked against the network before they are put in place."""
