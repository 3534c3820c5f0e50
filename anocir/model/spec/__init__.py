"""config.json is checked, all of it before anything is touched.

Side: pure.  Spec: config.md and config-linux.md of version 1.3.  `whole` is the configuration; each
other module has a `check` of its own for who reads no more than that.  Every complaint is an
`errors.Error` that begins with the JSON path and says what would be right.

A checked configuration has no null among its known properties, `process.user` with uid and gid
(0 if they were left out), and `process.ioPriority.priority` (0 likewise); nothing else is
changed.  Unknown properties are kept and ignored (spec: extensibility).
"""
