"""Kubernetes' tests of a container runtime, with images that are made here: see run.py."""
