"""The relational steps of a log, as queries that every engine runs (`conrec.logs.engines`)."""
