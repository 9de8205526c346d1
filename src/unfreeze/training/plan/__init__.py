"""The plan of a run: stages, groups, rates and limits."""
