"""What layers with random weights share: posteriors, draws, predictions."""
