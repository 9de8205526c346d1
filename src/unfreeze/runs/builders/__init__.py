"""Objects of a run, built from its configuration."""
