"""A throw-away machine for what a cgroup v1 host cannot test."""
