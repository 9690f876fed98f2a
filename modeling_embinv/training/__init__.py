"""Training: what a run is made of, its loop, its checkpoints."""
