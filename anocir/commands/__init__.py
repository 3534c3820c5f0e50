"""One file an operation: its options, its help, and one call."""
