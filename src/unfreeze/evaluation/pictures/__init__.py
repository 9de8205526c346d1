"""Pictures of a run, as figures for files, TensorBoard and the report page."""
