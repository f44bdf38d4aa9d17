"""Readers, one for each format of datasets."""
