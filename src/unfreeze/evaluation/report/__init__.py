"""report.html: a self-contained page with the metrics, warnings and pictures of a run."""
