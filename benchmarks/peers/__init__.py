"""Ways of others, in PyTorch."""
