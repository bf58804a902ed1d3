"""What agents share: base, loop, file, rollouts, replay, statistics of runs."""
