"""Numbers of errors, of those that somebody looks at.

Side: host and init.  The module `errno` makes a dictionary of all of them, which costs as much as a
dozen modules of ours.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

# include/uapi/asm-generic/errno-base.h and errno.h; the same on all our architectures
EPERM: Final = 1
ENOENT: Final = 2
ESRCH: Final = 3
EINTR: Final = 4
EIO: Final = 5
E2BIG: Final = 7
EBADF: Final = 9
EAGAIN: Final = 11
ENOMEM: Final = 12
EACCES: Final = 13
EBUSY: Final = 16
EEXIST: Final = 17
EXDEV: Final = 18
ENODEV: Final = 19
ENOTDIR: Final = 20
EISDIR: Final = 21
EINVAL: Final = 22
ENOTTY: Final = 25
ENOSPC: Final = 28
EROFS: Final = 30
EPIPE: Final = 32
ENAMETOOLONG: Final = 36
ENOLCK: Final = 37
ENOSYS: Final = 38
ENOTEMPTY: Final = 39
ELOOP: Final = 40
EOVERFLOW: Final = 75
ENOTSUP: Final = 95
EOPNOTSUPP: Final = 95
ECONNRESET: Final = 104
ENOTCONN: Final = 107
ESHUTDOWN: Final = 108
ETIMEDOUT: Final = 110
ECONNREFUSED: Final = 111
