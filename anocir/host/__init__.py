"""The runtime's side: one file an operation, over what several of them need."""
