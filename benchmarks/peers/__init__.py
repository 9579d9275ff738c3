"""Ways of others, which the benchmarks compare with."""
