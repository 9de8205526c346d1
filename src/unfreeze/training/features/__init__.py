"""Features of the frozen prefix: keys, extraction, tables and the callback that uses them."""
