"""The systemd cgroup driver under a real systemd, which boot.sh starts natively in a second."""
