"""Online experiments: two arms of an A/B test compared from their logs."""
