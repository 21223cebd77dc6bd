"""Questions that several test modules ask."""

HARD = (
    "A bus with 50 seats makes 6 trips a day. On weekdays it is two thirds full and on weekends half as full. Each "
    "ticket costs 3 dollars, children pay half, and a fifth of the passengers are children. How much is earned in "
    "2 weeks?"
)
"""Samples of it part early, so that hundreds take long; those of an easy question are evaluated once."""
