"""What runs leave in their directories, and who may write there."""
