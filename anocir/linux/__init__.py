"""The kernel's interface: one function a system call, under the kernel's own names.

Side: host and init.  Nothing in here knows a word of the OCI specification, and no ctypes type
leaves this package.
"""
