"""What the demo's judge measures with: motion, pictures, runs of the engine, the table."""
