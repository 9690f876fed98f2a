"""How far a long run is, and how fast, on stderr."""
