"""Files and data frames of (user, candidate) pairs in, the same rows with decisions out."""
