"""Scores of predicted probabilities: metrics and a picture of them."""
