"""What passes between the two sides."""
