"""Parts of normalizing flows: the base class, couplings, scales, splines."""
