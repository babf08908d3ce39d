"""Batches: many models from one list, each converted, validated and reported as by itself.

listing      the list: a CSV file, checked as a whole before anything runs
converting   one model, in the process of a worker; what came of it is an outcome
seen         what was complete when it was last looked at, so that looking again costs next to nothing
running      the models that have to run, over the workers of an engine
progress     how far it is
tables       results.csv, summary.md, junit.xml and report.html of the whole
"""
