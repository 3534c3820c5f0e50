"""The validation suite of runtime-tools, run and compared."""
