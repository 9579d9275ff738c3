"""What a run will need, from formulas, before anything is bought."""
