"""Conditions: from what was observed to what is answered."""

__all__ = ["answer_board", "composition"]
