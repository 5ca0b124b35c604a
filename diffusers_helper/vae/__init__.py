"""Latents to frames and back, in little memory. Knows no section and no video file."""
