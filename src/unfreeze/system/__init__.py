"""The operating system: files, processes, cores, memory and the terminal."""
