"""The number format that a run computes in."""
