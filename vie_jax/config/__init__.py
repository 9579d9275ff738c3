"""What a config may say, and what each of its fields decides."""
