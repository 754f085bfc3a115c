"""What is asked: prompts, worked solutions and the form of a response. No torch."""
