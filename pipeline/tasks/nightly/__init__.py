"""Nights: the same chain on each day's data, compared with the night before, kept for a while, and told of.

    paths       where nights are, which one is current, and which are removed
    history     history.csv: a line for each night
    running     makes a night, and decides what became of it
    drift       what a night's model answers to the rows of the night before
    page        nights.html: the nights as a table and as drawings
    exposition  a text file for Prometheus
    telling     the hook, and the e-mail of a recovery

A night that has passed is history. What changes later (code, settings, libraries) does not make it anew, as it would
a chain outside of nights; a night whose folder was deleted is made again.
"""
