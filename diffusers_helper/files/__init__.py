"""Files that are written whole or not at all, and errors of the disk. Knows no torch and no job."""
