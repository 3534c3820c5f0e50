"""anocir: an OCI container runtime in one executable file."""

__version__ = "0.2.0"
# The version of the OCI Runtime Specification that is implemented.
SPEC_VERSION = "1.3.0"
