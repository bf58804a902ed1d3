"""What graph layers share: a plan of who sends to whom."""
