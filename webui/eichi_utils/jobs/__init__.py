"""The queue of videos to make, one worker thread, and what is known of their progress. Knows no widget."""
