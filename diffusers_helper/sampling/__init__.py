"""The denoising of one section: schedule, denoiser, sampler. Knows no file and no earlier section."""
