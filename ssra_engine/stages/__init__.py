"""The stages of the method: plain functions from Arrow tables to Arrow tables."""
