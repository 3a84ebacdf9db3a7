"""Crash tests: the program is killed again and again, and must lose and repeat nothing."""
