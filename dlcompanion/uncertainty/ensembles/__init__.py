"""What members of an ensemble share: weights stacked along one axis."""
