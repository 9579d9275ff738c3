"""Nearest training videos: of validation videos, or of videos of one's own."""
