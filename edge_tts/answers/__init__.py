"""Whether two answers mean the same: numbers, units, words and lists here, formulas by math-verify in a child process.

Imports nothing of the package.
"""
