"""What a checkpoint recovers of held-out texts, and how sure it may be."""
