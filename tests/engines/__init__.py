"""Tests that run real container engines over the runtime, each in a box of its own."""
