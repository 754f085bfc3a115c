"""Models and tokenizers: from local folders, and the two that come with prmkit."""
