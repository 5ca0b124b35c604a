"""How the demo's models were trained: clips that are drawn, the models' training, and their export."""
