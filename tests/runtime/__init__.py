"""The runtime tier: the archive as its users drive it, one file for each chapter of the specification."""
