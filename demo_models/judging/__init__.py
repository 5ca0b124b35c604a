"""The judge's instruments: motion, pictures, runs of the engine, the table."""
