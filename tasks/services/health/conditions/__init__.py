"""From observations to the answers of the health server."""

__all__ = ["answer_board", "composition"]
