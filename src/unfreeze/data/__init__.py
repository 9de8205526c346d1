"""Images: sources, splits, store, loaders, augmentation and audit."""
