"""Kinds of prediction sets: by class, by group, and of real targets."""
