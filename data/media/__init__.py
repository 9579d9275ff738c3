"""One media file: what it says of itself, its frames and their times, its parts."""
