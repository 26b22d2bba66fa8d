"""What the user asks for, and the objects that follow from it. Pure."""
