"""The items as rows of whole numbers, and the two compiled questions to them: is anything near, and what is nearest."""
