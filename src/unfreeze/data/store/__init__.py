"""Images decoded once and kept as uint8."""
