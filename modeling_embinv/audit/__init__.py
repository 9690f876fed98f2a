"""What a vector store leaks, and what a defence buys."""
