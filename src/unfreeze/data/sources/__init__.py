"""Where labelled images come from, and how their files are decoded."""
