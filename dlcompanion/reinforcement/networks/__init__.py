"""Networks of agents: NumPy copies, memories, action distributions, layers."""
