"""This machine and its processes: nothing of images or networks."""
