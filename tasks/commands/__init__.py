"""doit commands, one verb per file."""
