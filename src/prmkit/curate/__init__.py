"""Curation of prompts for RL: steps that keep, change or drop records, with a reason for every one that is dropped."""
