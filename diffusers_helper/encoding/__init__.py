"""Prompts and pictures become embeddings and latents, cached on disk. Knows no section."""
