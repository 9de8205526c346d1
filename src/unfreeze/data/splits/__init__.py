"""Train, validation and test splits of labelled images."""
