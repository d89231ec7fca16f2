"""How good the rows of the table are: metrics, intervals, comparisons and studies, from a run's files alone."""
