"""The commands of `dbvalet`, one module each. What is heavy is imported when a command runs, not to describe it."""
