"""What `prepare.py show` shows: clips as a network sees them, duplicates."""
