"""anocir: an OCI container runtime in one executable file."""

__version__ = "0.1.0"
