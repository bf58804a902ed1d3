"""Environments: of gymnasium, as arrays, on Ray, and with a finite table."""
