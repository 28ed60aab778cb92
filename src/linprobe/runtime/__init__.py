"""What every room may use: errors, files, randomness, memory, threads, progress."""
