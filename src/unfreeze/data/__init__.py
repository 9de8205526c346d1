"""Images: sources, splits, store, loaders, augmentation."""
