"""report.html: one page, whole in itself, that says whether to trust a model."""
