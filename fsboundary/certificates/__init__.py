"""Certificates as files, and the program that checks them without this package."""

from fsboundary.certificates.export import export_certificates, write_verifier

__all__ = ["export_certificates", "write_verifier"]
