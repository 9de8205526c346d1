"""Images decoded once and stored as uint8."""
