"""Tests that run under the systemd that boot.sh starts."""
