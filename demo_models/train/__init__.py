"""The training of the demo's models: clips that are drawn, the models' training, and their export."""
