"""Files of a log to checked blocks of events."""
