"""The measurements of a report: the machine, the steps of each way, short videos. Writes no report."""
