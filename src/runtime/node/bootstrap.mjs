// Placeholder until the bootstrap is in.
