"""Nights: the same chain on each day's data, compared with the night before and kept for a while.

    paths       where nights are, which one is current, and which are removed
    history     history.csv: a line for each night
    run         makes a night, and decides whether it passed
    drift       compares a night's model with the night before, on the rows of both
    page        nights.html: the nights as a table and as charts
    prometheus  a text file for Prometheus
    notify      the hook, and the e-mail of a recovery

A night that has passed stays as it is: unlike other chains, it does not run again when code, settings or libraries
change. A night whose folder was deleted is made again.
"""
