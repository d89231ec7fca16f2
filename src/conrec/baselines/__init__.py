"""The other rows of the table: one file each, one interface (`conrec.recommender.Recommender`)."""
