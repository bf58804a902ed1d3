"""Board games: rules, exact play, matches, self-play and tree search."""
