"""Files that users upload, and their deletion. Knows no job."""
