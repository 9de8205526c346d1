"""What `unfreeze` can do, a module for what belongs together."""
