"""What a container, an image or a caller must not be able to do, each seen to fail without its defence."""
