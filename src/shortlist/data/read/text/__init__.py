"""Text files: separator, header, encoding, and values written as text."""
