"""What an evaluation leaves behind in its folder, and who reads it."""
