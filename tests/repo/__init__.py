"""Tests of the sources themselves: layers, imports, constants, the archive, the README."""
