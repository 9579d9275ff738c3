"""What a trained embedding is worth: features, kNN, monitors, pictures."""
