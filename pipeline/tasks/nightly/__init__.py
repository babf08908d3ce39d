"""Nights: the same chain on each day's data, compared with the night before and kept for a while.

A night that has passed stays as it is: unlike other chains, it does not run again when code, settings or libraries
change. A night whose folder was deleted is made again.
"""
