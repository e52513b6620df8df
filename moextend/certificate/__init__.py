"""Certificates: what an extension provably leaves as it was, claim by claim, and with which numbers."""
