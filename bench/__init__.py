"""Figures: what nacos-drain costs and gains."""
