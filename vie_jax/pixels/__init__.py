"""Resizing and colours of clips on the device, as jitted functions."""
