"""What calibrators share: the fit on held-out predictions."""
