"""The health server: what is sampled, what is made of it, and how it is served."""
