"""Certified robustness of whole data sets: verdicts, radii, smoothing, Lipschitz certificates, reports."""
