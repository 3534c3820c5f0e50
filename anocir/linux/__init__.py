"""The kernel's interface: one function a system call, under the kernel's own names.

Side: host and init.  Nothing in here knows a word of the OCI specification, and no ctypes type
leaves this package.
"""

from __future__ import annotations

import sys

# RTLD_LAZY (dlopen(3)). Of the 165 functions that _ctypes names few are called, and to look all of
# them up takes 0.04 ms, in each of the two processes.
sys.setdlopenflags(1)
