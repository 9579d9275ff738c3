"""The processes of a run: how they find, agree with and end one another."""
