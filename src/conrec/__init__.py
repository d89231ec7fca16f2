"""conrec: negative recommendation with a language model over semantic IDs.

From the "not interested" presses of a platform's users it learns what each user will dislike next,
and gives the platform an offline filter that drops those items before they are shown.
It implements CoNRec (arXiv 2601.15721) and the methods that the paper compares with.
"""

__version__ = "0.1.0"
