"""Timing of runtimes, side by side."""
