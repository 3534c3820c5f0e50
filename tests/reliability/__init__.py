"""What a runtime leaves behind when it is killed, crowded out, or lied to."""
