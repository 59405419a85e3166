def why_not(scores, negatives):
    return "later"
