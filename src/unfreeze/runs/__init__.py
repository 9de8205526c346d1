"""One run: build, fit, test, resume, reopen, evaluate, average, export."""
