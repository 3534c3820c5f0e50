"""Tests that only make sense in the machine; test_vm.py names them, pytest does not find them by itself."""
