"""The tests of anocir; each directory below is one tier."""
