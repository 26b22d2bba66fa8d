"""What is made of a trained network: scores, masks, exports, reports."""
