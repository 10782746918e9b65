"""Where `messages` was; for code that still names it so."""

from fairpo_trl.core.messages import joined_names, second_spellings, shortened, spelling_key, unknown_names_message


__all__ = ["joined_names", "second_spellings", "shortened", "spelling_key", "unknown_names_message"]
