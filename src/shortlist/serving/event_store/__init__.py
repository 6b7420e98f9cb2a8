"""Events that clients posted: checked, stored in SQLite, read again at a start."""
